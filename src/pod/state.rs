//! The life of one pod as a pure function: no IO, no clock, no process.
//!
//! Apart from `driver.rs`, which performs what is decided here and decides nothing itself.
//!
//! ```text
//!            hello             started         ready          Ask
//!  starting -------> starting ---------> loading ------> ready ======> busy
//!      |       (Start sent)        (Load sent)  |          |  <======    |  Cancel, Oversize
//!      |                                        |          |   Answer    v
//!      | Stop: term; failed: draining           |          |        busy(winding up) -- Answer, Pong --> ready
//!      | timeout, violation, LaneClosed: kill   |          | Stop        | CancelGrace
//!      |                                        |          v             |
//!      +----------------------------------------+      draining          |
//!                           |                              | DrainGrace  |
//!                           v                              v             v
//!                     stopping(term) <---------------------+       stopping(kill)
//!                           +------------ TermGrace ---------------------^ | KillGrace
//!                                                                          v
//!                                                                    stopping(last)
//!  Exited, in any state --> dead
//! ```
//!
//! What is not listed is ignored only where a comment says why; a message that makes no sense is a violation.

use crate::model::{Code, Fault};

/// Number of an ask, unique in a pod's life; never 0.
pub type AskId = u64;

/// How a pod's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Code(i32),
    Signal(i32),
}

/// Where a pod is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Spawned; `hello` tells whether the start message went out.
    Starting { hello: bool },
    /// Code imported; models are being loaded, a step of its own.
    Loading,
    /// Free.
    Ready,
    /// One ask in hand. `winding_up`: its caller has its outcome already, only the worker is not free yet.
    Busy { ask: AskId, winding_up: bool },
    /// Asked to finish and go; at most one ask in hand.
    Draining { ask: Option<AskId> },
    /// On the way to being ended by force.
    Stopping { rung: Rung },
    /// Over. Nothing is signalled, sent or resolved any more.
    Dead,
}

/// Rungs of the stop ladder, below draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// SIGTERM to the group.
    Term,
    /// The keeper was told to kill every process of the tree.
    Kill,
    /// SIGKILL to the group, the keeper included.
    Last,
}

/// What can happen to a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Hello,
    Started,
    Ready,
    Failed(Fault),
    /// A caller's ask is next in the queue.
    Ask(AskId),
    /// Progress or a chunk.
    Partial(AskId),
    Answer(AskId),
    /// A frame of that ask was too large and was read past.
    Oversize(AskId, u64),
    /// The caller is gone.
    Cancel(AskId),
    /// The pod's control thread says which ask is in hand (0: none).
    Pong(AskId),
    /// The pod broke the protocol.
    Violation(String),
    /// A lane ended while the process still lives.
    LaneClosed,
    /// Somebody wants the pod gone.
    Stop,
    /// The timer that was armed last ran out.
    Timeout,
    Exited(Ending),
}

/// Which wait is running; arming one replaces the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    Pong,
    CancelGrace,
    DrainGrace,
    TermGrace,
    KillGrace,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    SendStart,
    SendLoad,
    SendAsk(AskId),
    SendCancel(AskId),
    SendPing,
    SendDrain,
    /// Asks may be taken from the queue.
    TakeNext,
    /// Give progress or a chunk to its caller.
    Deliver(AskId),
    /// Give the answer just received to its caller.
    Resolve(AskId),
    /// End that ask with a fault.
    Fail(AskId, Fault),
    /// SIGTERM to the process group.
    Terminate,
    /// Tell the keeper to kill the whole tree.
    Kill,
    /// SIGKILL to the process group.
    KillGroup,
    Arm(Timer),
    Disarm,
    /// Why the pod is to die; kept for whoever asks next.
    Blame(Fault),
    /// Nothing comes after this: end what is in hand and queued, let go of everything.
    Bury(Ending),
}

use Action::*;

/// One step. Total: every (state, event) has an answer.
pub fn step(state: State, event: Event) -> (State, Vec<Action>) {
    match (state, event) {
        // Dead is dead: no signal after death, nothing resolved twice.
        (State::Dead, _) => (State::Dead, vec![]),
        (_, Event::Exited(ending)) => (State::Dead, vec![Disarm, Bury(ending)]),

        // Starting up.
        (State::Starting { hello: false }, Event::Hello) => (State::Starting { hello: true }, vec![SendStart]),
        (State::Starting { hello: true }, Event::Started) => (State::Loading, vec![SendLoad]),
        (State::Loading, Event::Ready) => (State::Ready, vec![Disarm, TakeNext]),
        (State::Starting { .. } | State::Loading, Event::Failed(fault)) => {
            // It exits by itself now; only one that does not is ended.
            (State::Draining { ask: None }, vec![Blame(fault), Arm(Timer::DrainGrace)])
        }
        (State::Starting { .. } | State::Loading, Event::Timeout) => {
            force(Rung::Kill, Some(Fault::new(Code::StartTimeout, "the pod did not become ready in time")))
        }

        // Work.
        (State::Ready, Event::Ask(ask)) => (State::Busy { ask, winding_up: false }, vec![SendAsk(ask)]),
        (State::Busy { ask, winding_up }, Event::Partial(of)) if ask == of => {
            // What a wound-up ask still sends has nobody to go to.
            (State::Busy { ask, winding_up }, if winding_up { vec![] } else { vec![Deliver(of)] })
        }
        (State::Busy { ask, winding_up: false }, Event::Answer(of)) if ask == of => (State::Ready, vec![Resolve(of), TakeNext]),
        (State::Busy { ask, winding_up: true }, Event::Answer(of)) if ask == of => (State::Ready, vec![Disarm, TakeNext]),
        (State::Busy { ask, winding_up: false }, Event::Cancel(of)) if ask == of => {
            let fault = Fault::new(Code::Cancelled, "the caller went away");
            (State::Busy { ask, winding_up: true }, vec![Fail(of, fault), SendCancel(of), Arm(Timer::CancelGrace)])
        }
        (State::Busy { ask, winding_up: false }, Event::Oversize(of, bytes)) if ask == of => {
            // Was it a chunk or the answer? The control thread knows whether the ask is still in hand.
            (State::Busy { ask, winding_up: true }, vec![Fail(of, oversize(bytes)), SendPing, Arm(Timer::Pong)])
        }
        (State::Busy { ask, winding_up: true }, Event::Oversize(of, _)) if ask == of => (State::Busy { ask, winding_up: true }, vec![]),
        (State::Busy { ask, winding_up: true }, Event::Pong(in_hand)) => match in_hand == ask {
            true => (State::Busy { ask, winding_up: true }, vec![SendCancel(ask), Arm(Timer::CancelGrace)]),
            false => (State::Ready, vec![Disarm, TakeNext]),
        },
        (State::Busy { winding_up: true, .. }, Event::Timeout) => {
            force(Rung::Kill, Some(Fault::new(Code::Crashed, "the pod did not heed a cancelled ask and was killed")))
        }

        // Going by request.
        (State::Starting { .. } | State::Loading, Event::Stop) => force(Rung::Term, Some(stopped())),
        (State::Ready, Event::Stop) => (State::Draining { ask: None }, vec![SendDrain, Arm(Timer::DrainGrace)]),
        (State::Busy { ask, winding_up }, Event::Stop) => {
            (State::Draining { ask: (!winding_up).then_some(ask) }, vec![SendDrain, Arm(Timer::DrainGrace)])
        }
        (State::Draining { ask: Some(ask) }, Event::Answer(of)) if ask == of => (State::Draining { ask: None }, vec![Resolve(of)]),
        (State::Draining { ask: Some(ask) }, Event::Partial(of)) if ask == of => (State::Draining { ask: Some(ask) }, vec![Deliver(of)]),
        (State::Draining { ask: Some(ask) }, Event::Cancel(of)) if ask == of => {
            (State::Draining { ask: None }, vec![Fail(of, Fault::new(Code::Cancelled, "the caller went away")), SendCancel(of)])
        }
        (State::Draining { ask: Some(ask) }, Event::Oversize(of, bytes)) if ask == of => {
            (State::Draining { ask: None }, vec![Fail(of, oversize(bytes))])
        }
        (State::Draining { .. }, Event::Timeout) => force(Rung::Term, Some(stopped())),
        // The lanes of a draining pod end because it is going; an ask without an answer is failed when it is buried.
        (state @ State::Draining { .. }, Event::LaneClosed | Event::Answer(_) | Event::Partial(_) | Event::Oversize(..)) => (state, vec![]),

        // Going by force.
        (State::Stopping { rung: Rung::Term }, Event::Timeout) => force(Rung::Kill, None),
        (State::Stopping { rung: Rung::Kill }, Event::Timeout) => force(Rung::Last, None),
        // Whatever else a pod says while it is being ended no longer counts.
        (state @ State::Stopping { .. }, _) => (state, vec![]),

        // A pong that nobody waits for, a stop of what is stopping, a cancel that crossed its answer: late, not wrong.
        (state, Event::Pong(_) | Event::Cancel(_)) => (state, vec![]),
        (state @ State::Draining { .. }, Event::Stop) => (state, vec![]),
        // A timer that ran out as it was disarmed.
        (state @ (State::Ready | State::Busy { winding_up: false, .. }), Event::Timeout) => (state, vec![]),

        // What makes no sense ends the pod.
        (_, Event::LaneClosed) => violation("closed its socket while it was alive"),
        (_, Event::Violation(text)) => violation(&text),
        (_, Event::Answer(of)) => violation(&format!("answered ask {of}, which is not in hand")),
        (_, Event::Partial(of)) => violation(&format!("sent a part of ask {of}, which is not in hand")),
        (_, Event::Oversize(of, bytes)) => violation(&format!("sent {bytes} bytes for ask {of}, which is not in hand")),
        (state, event @ (Event::Hello | Event::Started | Event::Ready | Event::Failed(_))) => {
            violation(&format!("sent `{}` while {}", event.name(), state.name()))
        }
        // The driver takes from the queue only when told to.
        (state, Event::Ask(ask)) => (state, vec![Fail(ask, Fault::new(Code::Internal, "an ask was sent to a pod that is not free"))]),
    }
}

fn force(rung: Rung, why: Option<Fault>) -> (State, Vec<Action>) {
    let mut actions: Vec<Action> = why.map(Blame).into_iter().collect();
    actions.extend(match rung {
        Rung::Term => [Terminate, Arm(Timer::TermGrace)],
        Rung::Kill => [Kill, Arm(Timer::KillGrace)],
        Rung::Last => [KillGroup, Arm(Timer::KillGrace)],
    });
    (State::Stopping { rung }, actions)
}

fn violation(what: &str) -> (State, Vec<Action>) {
    force(Rung::Kill, Some(Fault::new(Code::ProtocolViolation, format!("the pod {what}"))))
}

fn stopped() -> Fault {
    Fault::new(Code::Cancelled, "the pod was stopped")
}

fn oversize(bytes: u64) -> Fault {
    Fault::new(
        Code::TooLarge,
        format!("the pod sent a frame of {bytes} bytes; at most {} are carried", crate::model::limits::FRAME_BYTES_MAX),
    )
    .hint("return less at once: a streaming operation may send parts")
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Event::Hello => "hello",
            Event::Started => "started",
            Event::Ready => "ready",
            Event::Failed(_) => "failed",
            _ => "something",
        }
    }
}

impl State {
    /// The state as people and `--json` see it.
    pub fn name(&self) -> &'static str {
        match self {
            State::Starting { .. } => "starting",
            State::Loading => "loading",
            State::Ready => "ready",
            State::Busy { .. } => "busy",
            State::Draining { .. } => "draining",
            State::Stopping { .. } => "stopping",
            State::Dead => "dead",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn any_event() -> impl Strategy<Value = Event> {
        let ask = 1u64..6;
        prop_oneof![
            Just(Event::Hello),
            Just(Event::Started),
            Just(Event::Ready),
            Just(Event::Failed(Fault::new(Code::ImportFailed, "x"))),
            ask.clone().prop_map(Event::Partial),
            ask.clone().prop_map(Event::Answer),
            ask.clone().prop_map(|ask| Event::Oversize(ask, 9)),
            ask.clone().prop_map(Event::Cancel),
            (0u64..6).prop_map(Event::Pong),
            Just(Event::Violation("x".into())),
            Just(Event::LaneClosed),
            Just(Event::Stop),
            Just(Event::Timeout),
            Just(Event::Exited(Ending::Code(0))),
        ]
    }

    proptest! {
        /// Whatever a pod and its callers do: no ask is ended twice, none is given out while another is in hand,
        /// nothing happens after the burial, and every state from which only a wait leads on has a timer armed.
        #[test]
        fn no_order_of_events_breaks_the_promises(gets_ready in any::<bool>(), events in prop::collection::vec(any_event(), 0..60)) {
            let mut state = State::Starting { hello: false };
            let (mut next_ask, mut ended, mut in_hand) = (1u64, HashSet::new(), None);
            let (mut buried, mut armed, mut free) = (false, true, false);
            let start = [Event::Hello, Event::Started, Event::Ready].into_iter().take(if gets_ready { 3 } else { 0 });
            let mut queue = start.chain(events);
            loop {
                // A free slot takes an ask at once, as the driver does.
                let event = if free { free = false; in_hand = Some(next_ask); next_ask += 1; Event::Ask(next_ask - 1) }
                    else if let Some(event) = queue.next() { event } else { break };
                let (after, actions) = step(state, event);
                for action in &actions {
                    prop_assert!(!buried, "{action:?} after the burial");
                    match action {
                        TakeNext => free = true,
                        Resolve(ask) | Fail(ask, _) => {
                            prop_assert!(ended.insert(*ask), "ask {ask} ended twice");
                            prop_assert_eq!(in_hand.take(), Some(*ask));
                        }
                        Deliver(ask) => prop_assert_eq!(in_hand, Some(*ask)),
                        Arm(_) => armed = true,
                        Disarm => armed = false,
                        Bury(_) => buried = true,
                        _ => {}
                    }
                }
                state = after;
                if !matches!(state, State::Ready) { prop_assert!(!free || buried); }
                match &state {
                    State::Dead => prop_assert!(buried),
                    State::Ready | State::Busy { winding_up: false, .. } => {}
                    _ => prop_assert!(armed, "nothing would ever happen in {state:?}"),
                }
                if buried { free = false; }
            }
        }
    }

    #[test]
    fn a_pod_that_never_heeds_a_cancel_is_killed_and_not_given_out_again() {
        let busy = State::Busy { ask: 1, winding_up: false };
        let (state, actions) = step(busy, Event::Cancel(1));
        assert!(matches!(&actions[..], [Fail(1, fault), SendCancel(1), Arm(Timer::CancelGrace)] if fault.code == Code::Cancelled));
        let (state, actions) = step(state, Event::Timeout);
        assert_eq!(state, State::Stopping { rung: Rung::Kill });
        assert!(actions.contains(&Kill) && !actions.contains(&TakeNext));
    }
}
