//! The pod's states by their promises: no order of events breaks them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::pod::driver::state::*;

fn any_event() -> impl Strategy<Value = Event<()>> {
    let ask = 1u64..9;
    prop_oneof![
        1 => Just(Event::Hello),
        1 => Just(Event::Started),
        2 => Just(Event::MayLoad),
        2 => Just(Event::Unload),
        2 => Just(Event::Unloaded),
        1 => Just(Event::Ready),
        1 => Just(Event::Failed(Fault::new(Code::ImportFailed, "x"))),
        4 => (1usize..4).prop_map(|count| Event::Unit(0, count)),
        2 => ask.clone().prop_map(|ask| Event::Partial(ask, ())),
        6 => ask.clone().prop_map(|ask| Event::Answer(ask, ())),
        1 => ask.clone().prop_map(|ask| Event::Oversize(ask, 9)),
        3 => ask.clone().prop_map(Event::Cancel),
        1 => ask.clone().prop_map(|ask| Event::Stalled(ask, Fault::new(Code::Stalled, "x"))),
        1 => prop::collection::vec(0u64..9, 0..3).prop_map(Event::Pong),
        1 => ask.prop_map(Event::GraceOver),
        1 => Just(Event::Violation("x".into())),
        1 => Just(Event::Silent(Fault::new(Code::Stalled, "x"))),
        1 => Just(Event::LaneClosed),
        1 => Just(Event::Retire),
        1 => Just(Event::Stop),
        1 => Just(Event::Timeout),
        1 => Just(Event::Exited(Ending::Code(0))),
    ]
}

/// What the test knows of the pod: kept by the actions alone.
#[derive(Default)]
struct Seen {
    /// Asks that still have a caller.
    wanted: BTreeSet<AskId>,
    /// Units whose place is taken, with the asks that they began with.
    taken: BTreeMap<AskId, usize>,
    graced: BTreeSet<AskId>,
    next: AskId,
    finished: bool,
    armed: bool,
}

proptest! {
    /// Whatever a pod and its callers do, in any order: no ask is ended twice or forgotten, no place is freed
    /// twice or lost, nothing happens after the end, and every state from which only a wait leads on has that
    /// wait running.
    #[test]
    fn no_order_of_events_breaks_the_promises(
        concurrency in 1usize..4, gets_ready in any::<bool>(), events in prop::collection::vec(any_event(), 0..80)
    ) {
        let rules = Rules { concurrency };
        let mut state = State::Starting { hello: false };
        let mut seen = Seen { next: 1, armed: true, ..Seen::default() };
        let start = [Event::Hello, Event::Started, Event::MayLoad, Event::Ready].into_iter().take(if gets_ready { 4 } else { 0 });
        for event in start.chain(events) {
            let event = match event {
                Event::Unit(_, count) => {
                    // As the driver does: only a serving pod takes.
                    if !matches!(state, State::Serving(_)) || seen.next > 7 { continue }
                    let first = seen.next;
                    seen.next += count as u64;
                    seen.wanted.extend(first..seen.next);
                    seen.taken.insert(first, count);
                    Event::Unit(first, count)
                }
                other => other,
            };
            let before = state.clone();
            let mut actions = Vec::new();
            state = step(rules, state, event.clone(), &mut actions);
            for action in &actions {
                prop_assert!(!seen.finished, "{action:?} after the end");
                match action {
                    Resolve(ask, ()) | Fail(ask, _) => prop_assert!(seen.wanted.remove(ask), "ask {ask} ended twice: {before:?} {event:?}"),
                    Deliver(ask, ()) => prop_assert!(seen.wanted.contains(ask)),
                    Grace(unit) => prop_assert!(seen.taken.contains_key(unit) && seen.graced.insert(*unit), "grace of {unit}"),
                    Freed(unit) => prop_assert!(seen.taken.remove(unit).is_some(), "unit {unit} freed twice"),
                    Arm(_) => seen.armed = true,
                    Disarm => seen.armed = false,
                    Finish(_) => { seen.finished = true; seen.wanted.clear(); seen.taken.clear(); }
                    _ => {}
                }
            }
            match &state {
                State::Serving(units) => prop_assert_eq!(units.len(), seen.taken.len(), "a place was lost"),
                State::Draining { units, timed } => {
                    prop_assert_eq!(units.len(), seen.taken.len());
                    prop_assert!(*timed || !units.is_empty(), "nothing would ever end this");
                    prop_assert!(!timed || seen.armed);
                }
                State::Empty => {}
                State::Starting { .. } | State::Loading | State::Unloading | State::Stopping { .. } => prop_assert!(seen.armed, "{state:?} without a wait"),
                State::Dead => prop_assert!(seen.finished),
            }
            if let State::Serving(units) | State::Draining { units, .. } = &state {
                // A unit that runs and that nobody waits for has its grace.
                for (at, unit) in units.list.iter().enumerate() {
                    let unwanted = !unit.asks.iter().any(|held| seen.wanted.contains(&held.ask));
                    prop_assert_eq!(unit.graced, seen.graced.contains(&unit.first));
                    prop_assert!(!(at < concurrency && unwanted) || unit.graced, "{unit:?} could wind up for ever");
                }
                // Nobody who waits is forgotten.
                for ask in &seen.wanted {
                    prop_assert!(units.holds(*ask), "ask {ask} is forgotten");
                }
            }
        }
    }
}

fn run(concurrency: usize, events: Vec<Event<()>>) -> (State, Vec<Action<()>>) {
    let rules = Rules { concurrency };
    let mut state = State::Serving(Units::default());
    let mut actions = Vec::new();
    for event in events {
        actions.clear();
        state = step(rules, state, event, &mut actions);
    }
    (state, actions)
}

#[test]
fn an_ask_that_waits_behind_another_has_no_grace_before_its_turn() {
    let (state, actions) = run(1, vec![Event::Unit(1, 1), Event::Unit(2, 1), Event::Cancel(2)]);
    assert!(!actions.contains(&Grace(2)) && actions.contains(&SendCancel(2)), "{actions:?}");
    let mut actions = Vec::new();
    step(Rules { concurrency: 1 }, state, Event::Answer(1, ()), &mut actions);
    assert_eq!(actions, [Resolve(1, ()), Freed(1), Grace(2)]);
}

#[test]
fn a_batch_has_its_grace_when_the_last_caller_left() {
    let (_, actions) = run(1, vec![Event::Unit(1, 2), Event::Cancel(1)]);
    assert!(!actions.iter().any(|action| matches!(action, Grace(_))));
    let (state, actions) = run(1, vec![Event::Unit(1, 2), Event::Cancel(1), Event::Cancel(2)]);
    assert!(actions.contains(&Grace(1)));
    assert_eq!(state.units(), 1, "its place is not free");
}

#[test]
fn a_retired_pod_finishes_what_it_has_before_its_time_runs() {
    let (state, actions) = run(1, vec![Event::Unit(1, 1), Event::Retire]);
    assert_eq!(actions, [SendDrain]);
    let mut actions = Vec::new();
    let state = step(Rules { concurrency: 1 }, state, Event::Answer(1, ()), &mut actions);
    assert_eq!(actions, [Resolve(1, ()), Freed(1), Arm(Timer::Drain)]);
    assert_eq!(state.shown(), "draining");
}

#[test]
fn models_come_when_there_is_a_place_and_go_between_units_alone() {
    let rules = Rules { concurrency: 1 };
    let mut actions: Vec<Action<()>> = Vec::new();
    let state = step(rules, State::Starting { hello: true }, Event::Started, &mut actions);
    assert_eq!((&state, &actions[..]), (&State::Empty, &[Disarm, AskToLoad][..]));
    let (state, actions) = run(1, vec![Event::Unit(1, 1), Event::Unload]);
    assert!(matches!(state, State::Serving(_)) && actions.is_empty(), "it has something in hand: {actions:?}");
    let (state, actions) = run(1, vec![Event::Unit(1, 1), Event::Answer(1, ()), Event::Unload]);
    assert_eq!((&state, &actions[..]), (&State::Unloading, &[SendUnload, Arm(Timer::Unload)][..]));
    let (state, actions) = run(1, vec![Event::Unload, Event::Unloaded]);
    assert_eq!((&state, &actions[..]), (&State::Empty, &[Disarm, Emptied][..]));
    let (state, actions) = run(1, vec![Event::Unload, Event::Unloaded, Event::MayLoad]);
    assert_eq!((&state, &actions[..]), (&State::Loading, &[Arm(Timer::Load), SendLoad][..]));
    let (state, _) = run(1, vec![Event::Unload, Event::Timeout]);
    assert_eq!(state, State::Stopping { rung: Rung::Kill }, "one that does not let go of them is ended");
    let (state, actions) = run(1, vec![Event::Unloaded]);
    assert!(matches!(state, State::Stopping { .. }) && matches!(&actions[0], Blame(fault) if fault.code == Code::ProtocolViolation));
}
