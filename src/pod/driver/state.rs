//! The life of one pod as a pure function: no IO, no clock, no process.
//!
//! This file makes every decision, and `task.rs` performs it.
//!
//! ```text
//!            hello             started          MayLoad           ready           Unit
//!  starting -------> starting ----------> empty ---------> loading ------> ready -------> busy: units in hand, the first `concurrency` run
//!      |       (Start sent)     (AskToLoad) ^    (Load sent)    |          |   ^              |  | Cancel, Stalled, Oversize: the caller has
//!      |                                    | unloaded          |          |   +--------------+  |   its outcome, the unit is winding up; once
//!      |                                    +--- unloading <----|----------+     last Answer     |   it runs and has no caller left, it has
//!      |                                             |          |   Unload (sent)                |   the cancel grace
//!      |                                  Timeout: kill         |             ready, busy        |
//!      | failed: draining                       |                  | Retire, Stop (drain sent)
//!      | Stop: term                             |                  v         |
//!      | Timeout, violation, LaneClosed: kill   |              draining      | GraceOver, Silent
//!      |                                        |                  | DrainGrace (with Retire it starts when the last unit is over)
//!      v                                        v                  v         v
//!      +------------------+---------------------+          stopping(term)  stopping(stacks)
//!                         |                                        |         | StackGrace
//!                         +---------> stopping(term | kill)        +-------> stopping(kill) -- KillGrace --> stopping(last)
//!                                                              TermGrace
//!  Exited, in any state --> dead
//! ```
//!
//! A *unit* is what runs together: one ask, or the asks of one batch. Its place is free when the last of its
//! asks was answered, and not before: the answer is the pod's proof. What is not listed is ignored only where
//! a comment says why; a message that makes no sense is a violation.

#[cfg(test)]
mod tests;

use crate::model::{Code, Fault, status::PodState};

/// Number of an ask, unique in a pod's life; never 0. The asks of a unit are numbered in a row.
pub type AskId = u64;

/// How a pod's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Code(i32),
    Signal(i32),
    /// The pod was to be forked, and the zygote was gone.
    NeverBegan,
}

/// Settings that are fixed for a pod's whole life.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    concurrency: usize,
}

impl Rules {
    pub fn new(concurrency: usize) -> Rules {
        Rules { concurrency }
    }

    /// Number of units that run at a time; units sent beyond that wait inside the pod, in order.
    pub fn concurrency(self) -> usize {
        self.concurrency
    }
}

/// The phase of a pod's life.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Spawned; `hello` says whether the start message was sent.
    Starting { hello: bool },
    /// Code imported, no model loaded: the pod waits for memory on the machine.
    Empty,
    /// Models are being loaded, as a step of its own.
    Loading,
    /// Models are being released, and the process stays.
    Unloading,
    /// Ready if no unit is in hand, busy otherwise.
    Serving(Units),
    /// Asked to finish and end. `timed`: the wait for it has begun.
    Draining { units: Units, timed: bool },
    /// Being ended by force.
    Stopping { rung: Rung },
    /// Over. Nothing is signalled, sent or resolved any more.
    Dead,
}

/// The units in hand, in the order in which the pod begins them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Units {
    list: Vec<Unit>,
}

#[derive(Debug, Clone, PartialEq)]
struct Unit {
    first: AskId,
    asks: Vec<Held>,
    /// Its grace runs: no caller waits for it, and it has its turn.
    graced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    ask: AskId,
    /// A caller waits for it; otherwise it is winding up.
    wanted: bool,
    /// A frame of it was skipped; only the pod knows whether that was the last one.
    probed: bool,
}

/// Rungs of the stop ladder, below draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// SIGTERM to the group.
    Term,
    /// The pod was asked to print where it hangs.
    Stacks,
    /// The keeper was told to kill every process of the tree.
    Kill,
    /// SIGKILL to the group, the keeper included.
    Last,
}

/// The events of a pod. `P` is the content of a part or an answer of an ask, for its caller; the state
/// machine passes it on unread.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<P> {
    Hello,
    Started,
    /// Memory for its models is available.
    MayLoad,
    Ready,
    /// Its models should be released; only between units.
    Unload,
    Unloaded,
    Failed(Fault),
    /// So many asks, starting with that number, were taken from the queue to run together.
    Unit(AskId, usize),
    /// Progress or a chunk.
    Partial(AskId, P),
    Answer(AskId, P),
    /// A frame of that ask was too large and was skipped.
    Oversize(AskId, u64),
    /// The caller is gone.
    Cancel(AskId),
    /// The ask gave no progress for longer than its recipe allows.
    Stalled(AskId, Fault),
    /// The pod's control thread lists the asks in hand.
    Pong(Vec<AskId>),
    /// The pod broke the protocol.
    Violation(String),
    /// The pod neither speaks nor computes.
    Silent(Fault),
    /// The pod used more of the machine than allowed.
    Excess(Fault),
    /// A lane ended while the process still lives.
    LaneClosed,
    /// The pod should end when its work is done.
    Retire,
    /// The pod should end now.
    Stop,
    /// The grace of a unit ran out.
    GraceOver(AskId),
    /// The most recently armed timer fired.
    Timeout,
    Exited(Ending),
}

/// The kind of wait that runs; arming one replaces the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    Load,
    Unload,
    Drain,
    Term,
    Stack,
    Kill,
}

/// The actions that the driver has to perform.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<P> {
    SendStart,
    /// Request memory for its models, now or when there is work.
    AskToLoad,
    SendLoad,
    SendUnload,
    /// Its models are released; whether their memory is free again must still be checked.
    Emptied,
    SendUnit(AskId),
    SendCancel(AskId),
    SendPing,
    SendDrain,
    /// Its models are loaded: units may be taken from the queue.
    Serve,
    /// Give progress or a chunk to its caller.
    Deliver(AskId, P),
    /// Give the answer to its caller.
    Resolve(AskId, P),
    /// End that ask with a fault.
    Fail(AskId, Fault),
    /// A unit's grace begins.
    Grace(AskId),
    /// A unit is over: its place is free, and its grace, if any, void.
    Freed(AskId),
    /// Ask the pod to print its stacks.
    DumpStacks,
    /// SIGTERM to the process group.
    Terminate,
    /// Tell the keeper to kill the whole tree.
    Kill,
    /// SIGKILL to the process group.
    KillGroup,
    Arm(Timer),
    Disarm,
    /// Why the pod has to die; kept for later readers.
    Blame(Fault),
    /// The last action: end or put back the asks in hand, release everything.
    Finish(Ending),
}

use Action::*;

/// One step. It is total: every (state, event) has an answer.
pub fn step<P>(rules: Rules, state: State, event: Event<P>, actions: &mut Vec<Action<P>>) -> State {
    match (state, event) {
        // Dead is dead: no signal after death, nothing resolved twice.
        (State::Dead, _) => State::Dead,
        (_, Event::Exited(ending)) => {
            actions.extend([Disarm, Finish(ending)]);
            State::Dead
        }

        // Starting up.
        (State::Starting { hello: false }, Event::Hello) => {
            actions.push(SendStart);
            State::Starting { hello: true }
        }
        (State::Starting { hello: true }, Event::Started) => {
            actions.extend([Disarm, AskToLoad]);
            State::Empty
        }
        (State::Empty, Event::MayLoad) => {
            actions.extend([Arm(Timer::Load), SendLoad]);
            State::Loading
        }
        (State::Loading, Event::Ready) => {
            actions.extend([Disarm, Serve]);
            State::Serving(Units::default())
        }
        (State::Starting { .. } | State::Loading | State::Unloading, Event::Failed(fault)) => {
            // It exits by itself now; only one that does not is ended.
            actions.extend([Blame(fault), Arm(Timer::Drain)]);
            State::Draining { units: Units::default(), timed: true }
        }
        // There never will be a place.
        (State::Empty, Event::Failed(fault)) => {
            actions.extend([Blame(fault), SendDrain, Arm(Timer::Drain)]);
            State::Draining { units: Units::default(), timed: true }
        }
        (State::Starting { .. } | State::Loading, Event::Timeout) => {
            force(Rung::Stacks, Some(Fault::new(Code::StartTimeout, "the pod did not become ready in time")), actions)
        }
        (State::Starting { .. } | State::Loading | State::Unloading, Event::Stop | Event::Retire) => {
            force(Rung::Term, Some(stopped()), actions)
        }
        (State::Empty, Event::Stop | Event::Retire) => {
            actions.extend([SendDrain, Arm(Timer::Drain)]);
            State::Draining { units: Units::default(), timed: true }
        }

        // Coming and going of models.
        (State::Serving(units), Event::Unload) if units.is_empty() => {
            actions.extend([SendUnload, Arm(Timer::Unload)]);
            State::Unloading
        }
        (State::Unloading, Event::Unloaded) => {
            actions.extend([Disarm, Emptied]);
            State::Empty
        }
        // What it holds comes back with its end.
        (State::Unloading, Event::Timeout) => force(Rung::Kill, Some(stopped()), actions),
        // An order that came too late, or too early: whoever gave it sees where the pod is.
        (state, Event::MayLoad | Event::Unload) => state,

        // Work. The driver takes from the queue only while serving.
        (State::Serving(mut units), Event::Unit(first, count)) => {
            let asks = (first..first + count as u64).map(|ask| Held { ask, wanted: true, probed: false }).collect();
            units.list.push(Unit { first, asks, graced: false });
            actions.push(SendUnit(first));
            State::Serving(units)
        }
        (State::Serving(units), event) if event.ask().is_some_and(|ask| units.holds(ask)) => {
            State::Serving(work(rules, units, event, actions))
        }
        (State::Draining { units, timed }, event) if event.ask().is_some_and(|ask| units.holds(ask)) => {
            let units = work(rules, units, event, actions);
            drained(units, timed, actions)
        }
        (State::Serving(units), Event::Pong(in_hand)) => State::Serving(probed(rules, units, &in_hand, actions)),
        (State::Draining { units, timed }, Event::Pong(in_hand)) => {
            let units = probed(rules, units, &in_hand, actions);
            drained(units, timed, actions)
        }
        (State::Serving(units) | State::Draining { units, .. }, Event::GraceOver(first)) if units.is_graced(first) => {
            let fault = Fault::new(Code::Crashed, "the pod did not heed a cancelled ask and was killed");
            force(Rung::Stacks, Some(fault), actions)
        }
        // Nothing to ask it: its stacks would take memory too.
        (
            State::Starting { .. } | State::Empty | State::Loading | State::Unloading | State::Serving(_) | State::Draining { .. },
            Event::Excess(fault),
        ) => force(Rung::Kill, Some(fault), actions),
        (State::Serving(_) | State::Draining { .. }, Event::Silent(fault)) => force(Rung::Stacks, Some(fault), actions),

        // Going by request.
        (State::Serving(units), Event::Retire) => {
            actions.push(SendDrain);
            drained(units, false, actions)
        }
        (State::Serving(units), Event::Stop) => {
            actions.extend([SendDrain, Arm(Timer::Drain)]);
            State::Draining { units, timed: true }
        }
        (State::Draining { units, timed: false }, Event::Stop) => {
            actions.push(Arm(Timer::Drain));
            State::Draining { units, timed: true }
        }
        (State::Draining { timed: true, .. }, Event::Timeout) => force(Rung::Term, Some(stopped()), actions),
        // Its lanes end because it is going; what has no answer then is dealt with at its end.
        (state @ State::Draining { .. }, Event::LaneClosed | Event::Stop | Event::Retire) => state,

        // Going by force.
        (State::Stopping { rung: Rung::Term | Rung::Stacks }, Event::Timeout) => force(Rung::Kill, None, actions),
        (State::Stopping { rung: Rung::Kill | Rung::Last }, Event::Timeout) => force(Rung::Last, None, actions),
        // Whatever else a pod says while it is being ended no longer counts.
        (state @ State::Stopping { .. }, _) => state,

        // A cancel that crossed its answer, a pong or a grace of what is over, a timer that ran out as it was
        // disarmed: late, not wrong.
        (state, Event::Pong(_) | Event::Cancel(_) | Event::Stalled(..) | Event::GraceOver(_)) => state,
        (state @ (State::Empty | State::Serving(_) | State::Draining { timed: false, .. }), Event::Timeout) => state,

        // What makes no sense ends the pod.
        (_, Event::LaneClosed) => violation("closed its socket while it was alive", actions),
        (_, Event::Violation(text)) => violation(&text, actions),
        (_, Event::Answer(of, _)) => violation(&format!("answered ask {of}, which is not in hand"), actions),
        (_, Event::Partial(of, _)) => violation(&format!("sent a part of ask {of}, which is not in hand"), actions),
        (_, Event::Oversize(of, bytes)) => violation(&format!("sent {bytes} bytes for ask {of}, which is not in hand"), actions),
        (state, event @ (Event::Hello | Event::Started | Event::Ready | Event::Unloaded | Event::Failed(_))) => {
            violation(&format!("sent `{}` while {}", event.name(), state.shown()), actions)
        }
        // Before it serves a pod is governed by the time it has to start.
        (state @ (State::Starting { .. } | State::Empty | State::Loading | State::Unloading), Event::Silent(_)) => state,
        // The driver takes only while serving.
        (state, Event::Unit(first, count)) => {
            let none = || Fault::new(Code::Internal, "an ask was sent to a pod that takes none");
            actions.extend((first..first + count as u64).map(|ask| Fail(ask, none())));
            state
        }
    }
}

/// An event of an ask in hand.
fn work<P>(rules: Rules, mut units: Units, event: Event<P>, actions: &mut Vec<Action<P>>) -> Units {
    let Some((unit, held)) = event.ask().and_then(|ask| units.find(ask)) else { return units };
    let ask = held.ask;
    match event {
        // What a wound-up ask still sends has nobody to go to.
        Event::Partial(_, part) if held.wanted => actions.push(Deliver(ask, part)),
        Event::Answer(_, answer) => {
            if held.wanted {
                actions.push(Resolve(ask, answer));
            }
            units.over(unit, ask, actions);
        }
        Event::Oversize(_, bytes) if held.wanted => {
            // Was it a chunk or the answer? The control thread knows whether the ask is still in hand.
            (held.wanted, held.probed) = (false, true);
            actions.extend([Fail(ask, oversize(bytes)), SendPing]);
        }
        Event::Cancel(_) if held.wanted => {
            held.wanted = false;
            actions.extend([Fail(ask, Fault::new(Code::Cancelled, "the caller went away")), SendCancel(ask)]);
        }
        Event::Stalled(_, fault) if held.wanted => {
            held.wanted = false;
            actions.extend([Fail(ask, fault), SendCancel(ask)]);
        }
        _ => {}
    }
    units.settle(rules, actions);
    units
}

/// The pod listed the asks in hand: asks in doubt that it does not list are over.
fn probed<P>(rules: Rules, mut units: Units, in_hand: &[AskId], actions: &mut Vec<Action<P>>) -> Units {
    let doubtful: Vec<AskId> = units.asks().filter(|held| held.probed).map(|held| held.ask).collect();
    for ask in doubtful {
        let Some((unit, held)) = units.find(ask) else { continue };
        held.probed = false;
        match in_hand.contains(&ask) {
            true => actions.push(SendCancel(ask)),
            false => units.over(unit, ask, actions),
        }
    }
    units.settle(rules, actions);
    units
}

/// Draining continues; its wait begins when the work ends, unless it began before.
fn drained<P>(units: Units, timed: bool, actions: &mut Vec<Action<P>>) -> State {
    let timed = timed
        || (units.is_empty() && {
            actions.push(Arm(Timer::Drain));
            true
        });
    State::Draining { units, timed }
}

impl Units {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Units in hand.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    fn asks(&self) -> impl Iterator<Item = &Held> {
        self.list.iter().flat_map(|unit| &unit.asks)
    }

    fn holds(&self, ask: AskId) -> bool {
        self.asks().any(|held| held.ask == ask)
    }

    fn is_graced(&self, first: AskId) -> bool {
        self.list.iter().any(|unit| unit.first == first && unit.graced)
    }

    fn find(&mut self, ask: AskId) -> Option<(usize, &mut Held)> {
        let each = self.list.iter_mut().enumerate();
        each.flat_map(|(at, unit)| unit.asks.iter_mut().map(move |held| (at, held))).find(|(_, held)| held.ask == ask)
    }

    /// The ask is over; with the last ask, its unit is over too.
    fn over<P>(&mut self, unit: usize, ask: AskId, actions: &mut Vec<Action<P>>) {
        self.list[unit].asks.retain(|held| held.ask != ask);
        if self.list[unit].asks.is_empty() {
            actions.push(Freed(self.list.remove(unit).first));
        }
    }

    /// Begins the grace of every unit that has its turn and has no waiting caller. A unit that waits behind
    /// others gets no grace yet: it cannot answer before they do.
    fn settle<P>(&mut self, rules: Rules, actions: &mut Vec<Action<P>>) {
        for unit in self.list.iter_mut().take(rules.concurrency) {
            if !unit.graced && unit.asks.iter().all(|held| !held.wanted) {
                unit.graced = true;
                actions.push(Grace(unit.first));
            }
        }
    }
}

fn force<P>(rung: Rung, why: Option<Fault>, actions: &mut Vec<Action<P>>) -> State {
    actions.extend(why.map(Blame));
    actions.extend(match rung {
        Rung::Term => [Terminate, Arm(Timer::Term)],
        Rung::Stacks => [DumpStacks, Arm(Timer::Stack)],
        Rung::Kill => [Kill, Arm(Timer::Kill)],
        Rung::Last => [KillGroup, Arm(Timer::Kill)],
    });
    State::Stopping { rung }
}

fn violation<P>(what: &str, actions: &mut Vec<Action<P>>) -> State {
    force(Rung::Kill, Some(Fault::new(Code::ProtocolViolation, format!("the pod {what}"))), actions)
}

fn stopped() -> Fault {
    Fault::new(Code::ShuttingDown, "the pod was stopped before it had answered")
}

fn oversize(bytes: u64) -> Fault {
    Fault::new(
        Code::TooLarge,
        format!("the pod sent a frame of {bytes} bytes; at most {} are carried", crate::model::limits::FRAME_BYTES_MAX),
    )
    .hint("return less at once: a streaming operation may send parts")
}

impl<P> Event<P> {
    fn name(&self) -> &'static str {
        match self {
            Event::Hello => "hello",
            Event::Started => "started",
            Event::Ready => "ready",
            Event::Unloaded => "unloaded",
            Event::Failed(_) => "failed",
            _ => "something",
        }
    }

    /// The ask that the event is about, if any.
    fn ask(&self) -> Option<AskId> {
        match self {
            Event::Partial(ask, _) | Event::Answer(ask, _) | Event::Oversize(ask, _) | Event::Cancel(ask) | Event::Stalled(ask, _) => {
                Some(*ask)
            }
            _ => None,
        }
    }
}

impl State {
    /// The state as people and `--json` see it.
    pub fn shown(&self) -> PodState {
        match self {
            State::Starting { .. } => PodState::Starting,
            State::Empty => PodState::Empty,
            State::Loading => PodState::Loading,
            State::Unloading => PodState::Unloading,
            State::Serving(units) if units.is_empty() => PodState::Ready,
            State::Serving(_) => PodState::Busy,
            State::Draining { .. } => PodState::Draining,
            State::Stopping { .. } => PodState::Stopping,
            State::Dead => PodState::Dead,
        }
    }

    /// Units in hand.
    pub fn units(&self) -> usize {
        match self {
            State::Serving(units) | State::Draining { units, .. } => units.len(),
            _ => 0,
        }
    }
}
