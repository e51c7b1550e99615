//! Tests the schedule's rules: each by an example, then all at once against a slow and simple model.

use std::{collections::BTreeMap, time::Instant};

use proptest::prelude::*;

use crate::{
    model::{limits::POD_QUEUE_MAX, manifest::operation::BatchCost, schema::Schema},
    pod::pool::schedule::*,
};

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// An operation whose batches have at most `items`, wait `wait_ms`, and cost at most `cost_max` (0: are
/// free).
pub(super) fn operation(items: usize, wait_ms: u64, cost_max: u64) -> Arc<Operation> {
    let cost = (cost_max > 0).then(|| BatchCost { of: "/x".into(), max: cost_max });
    Arc::new(Operation {
        name: "embed".into(),
        summary: String::new(),
        input: Schema::anything(),
        output: Schema::anything(),
        streaming: false,
        deadline_ms: 1_000,
        session: false,
        blobs: Default::default(),
        idempotent: true,
        progress_interval_ms: None,
        batch: Some(Batch { items, wait_ms, cost }),
    })
}

fn waiting(priority: Priority, arrived: u64, deadline: u64) -> Waiting {
    Waiting { priority, arrived: ms(arrived), deadline: ms(deadline), group: None }
}

fn grouped(operation: &Arc<Operation>, arrived: u64, cost: u64, cohort: u64) -> Waiting {
    let group = Group { operation: operation.clone(), cost, cohort };
    Waiting { group: Some(group), ..waiting(Priority::Normal, arrived, arrived + 100_000) }
}

fn push<T: std::fmt::Debug>(schedule: &mut Schedule<T>, item: T, waiting: Waiting) -> Ticket {
    schedule.push(item, waiting).expect("there is room")
}

/// Pushes all of `items`.
fn fill<T: std::fmt::Debug>(schedule: &mut Schedule<T>, items: impl IntoIterator<Item = T>, ask: impl Fn(&T) -> Waiting) {
    for item in items {
        let ask = ask(&item);
        push(schedule, item, ask);
    }
}

fn unit<T: std::fmt::Debug>(take: Take<T>) -> Vec<T> {
    match take {
        Take::Unit(unit) => unit.into_iter().map(|(.., item)| item).collect(),
        other => panic!("wanted a unit: {other:?}"),
    }
}

/// Everything that may be taken at `now`, unit by unit.
fn units<T: std::fmt::Debug>(schedule: &mut Schedule<T>, now: u64) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    while let Take::Unit(taken) = schedule.take(ms(now)) {
        all.push(taken.into_iter().map(|(.., item)| item).collect());
    }
    all
}

#[test]
fn higher_classes_first_then_earlier_deadlines_then_earlier_arrivals() {
    use Priority::*;
    let mut schedule = Schedule::new(10);
    for (name, priority, deadline) in
        [("f", Bulk, 10), ("d", Normal, 90), ("a", Interactive, 70), ("b", Interactive, 80), ("c", Interactive, 80), ("e", Normal, 95)]
    {
        push(&mut schedule, name, waiting(priority, 0, deadline));
    }
    assert_eq!(schedule.counts(), [3, 2, 1]);
    assert_eq!(units(&mut schedule, 5).concat().concat(), "abcdef");
    assert!(schedule.is_empty() && matches!(schedule.take(ms(5)), Take::Nothing));
}

#[test]
fn what_is_put_back_is_first_among_its_class_and_keeps_its_ticket() {
    let mut schedule = Schedule::new(1);
    let ticket = push(&mut schedule, "b", waiting(Priority::Normal, 0, 100));
    let Take::Unit(taken) = schedule.take(ms(1)) else { panic!() };
    assert_eq!((taken[0].0, taken.len()), (ticket, 1));
    push(&mut schedule, "c", waiting(Priority::Normal, 1, 50));
    // Beyond the bound: it was accepted before.
    schedule.put_back(ticket, "b", waiting(Priority::Normal, 0, 100));
    schedule.put_back(Ticket(1_000), "a", waiting(Priority::Interactive, 0, 100));
    assert_eq!(schedule.len(), 3);
    assert_eq!(units(&mut schedule, 5), [["a"], ["b"], ["c"]]);
}

#[test]
fn an_ask_that_is_removed_is_gone() {
    let mut schedule = Schedule::new(10);
    let first = push(&mut schedule, 1, waiting(Priority::Bulk, 0, 100));
    push(&mut schedule, 2, waiting(Priority::Bulk, 0, 100));
    assert_eq!((schedule.remove(first), schedule.remove(first), schedule.remove(Ticket(77))), (Some(1), None, None));
    assert_eq!(units(&mut schedule, 0), [[2]]);
    assert_eq!(schedule.next_expiry(), None);
}

#[test]
fn what_has_expired_is_shed_in_every_class() {
    let mut schedule = Schedule::new(10);
    for (deadline, priority) in [(30, Priority::Bulk), (10, Priority::Normal), (20, Priority::Interactive), (40, Priority::Interactive)] {
        push(&mut schedule, deadline, waiting(priority, 0, deadline));
    }
    assert_eq!(schedule.next_expiry(), Some(ms(10)));
    assert_eq!(schedule.shed(ms(9)), [0; 0]);
    assert_eq!(schedule.shed(ms(30)), [10, 20, 30]);
    assert_eq!((schedule.len(), schedule.next_expiry()), (1, Some(ms(40))));
    assert_eq!(schedule.drain(), [40]);
    assert!(schedule.is_empty());
    assert_eq!(schedule.counts(), [0; 3]);
}

#[test]
fn a_full_queue_refuses_and_keeps_room_for_who_waits_at_a_screen() {
    let mut schedule = Schedule::new(100);
    fill(&mut schedule, 0..75, |_| waiting(Priority::Bulk, 0, 100));
    let refused = schedule.push(75, waiting(Priority::Bulk, 0, 100)).unwrap_err();
    assert_eq!((refused.item, refused.waiting, refused.retry_after), (75, 75, ms(1_000)));
    fill(&mut schedule, 75..100, |_| waiting(Priority::Interactive, 0, 100));
    assert_eq!(schedule.push(100, waiting(Priority::Interactive, 0, 100)).unwrap_err().waiting, 100);
    assert_eq!(schedule.drain().len(), 100);
    let refused = Schedule::new(0).push("whole", waiting(Priority::Interactive, 0, 100)).unwrap_err();
    assert_eq!((refused.item, refused.waiting), ("whole", 0));
}

#[test]
fn refused_callers_are_sent_away_one_behind_the_other_and_not_without_end() {
    let mut schedule = Schedule::new(4);
    fill(&mut schedule, 0..4, |_| waiting(Priority::Normal, 0, 100_000));
    // 100 ms a unit, measured while others wait.
    let served = Served { operation: operation(1, 0, 0), service: ms(100), items: 1 };
    (0..10).for_each(|step| schedule.done(ms(step * 100), &served));
    let refuse = |schedule: &mut Schedule<_>| {
        let expected = schedule.retry_after();
        let refused = schedule.push(9, waiting(Priority::Normal, 900, 100_000)).unwrap_err();
        assert_eq!(refused.retry_after, expected);
        refused.retry_after.as_millis()
    };
    let waits: Vec<_> = (0..8).map(|_| refuse(&mut schedule)).collect();
    assert_eq!(waits, [200, 300, 400, 500, 600, 700, 800, 900]);
    // Two places became free, and they belong to those two.
    assert_eq!([0; 2].map(|_| unit(schedule.take(ms(1_000)))[0]), [0, 1]);
    fill(&mut schedule, 0..2, |_| waiting(Priority::Normal, 0, 100_000));
    assert_eq!(refuse(&mut schedule), 800);
    // A caller that retries all the time keeps others away until the queue is empty, and not longer.
    assert_eq!((0..2 * SENT_AWAY_MAX).map(|_| refuse(&mut schedule)).max(), Some(60_000));
    assert_eq!((refuse(&mut schedule), schedule.sent_away), (60_000, SENT_AWAY_MAX));
    units(&mut schedule, 1_000);
    assert_eq!(schedule.retry_after(), ms(200));
}

#[test]
fn an_aged_ask_is_next_when_enough_units_have_passed_it_over() {
    let passed = u64::from(PASSED_OVER_MAX);
    for (arrived, expected) in [(0, passed), (10_000 - AGE_MS, passed + 20)] {
        let mut schedule = Schedule::new(100);
        push(&mut schedule, 1_000, waiting(Priority::Bulk, arrived, 100_000));
        fill(&mut schedule, 0..passed + 20, |_| waiting(Priority::Interactive, 9_999, 100_000));
        let order = units(&mut schedule, 10_000).concat();
        assert_eq!(order.iter().position(|item| *item == 1_000), Some(expected as usize), "arrived at {arrived}");
    }
}

#[test]
fn interactive_work_now_and_then_is_never_passed_by_aged_bulk() {
    let mut schedule = Schedule::new(2_000);
    // The oldest one is not the next one of its class: its age must not count against others when its own
    // class passes it over.
    fill(&mut schedule, 0..900, |item| waiting(Priority::Bulk, 0, 1_000_000 - item));
    for round in 0..100 {
        let now = 10_000 + round;
        fill(&mut schedule, 1_000..1_005, |_| waiting(Priority::Interactive, now, now + 10_000));
        for _ in 0..5 {
            assert!(unit(schedule.take(ms(now)))[0] >= 1_000, "round {round}");
        }
        for _ in 0..8 {
            assert!(unit(schedule.take(ms(now)))[0] < 1_000, "round {round}");
        }
    }
}

#[test]
fn a_batch_is_what_waits_of_one_operation_in_order_of_all_classes() {
    let (embed, rank) = (operation(4, 0, 0), operation(4, 0, 0));
    let mut schedule = Schedule::new(100);
    for (name, operation) in [("a", &embed), ("x", &rank), ("b", &embed), ("c", &embed), ("d", &embed), ("e", &embed)] {
        push(&mut schedule, name, grouped(operation, 0, 1, 0));
    }
    push(&mut schedule, "i", Waiting { priority: Priority::Interactive, ..grouped(&embed, 0, 1, 0) });
    push(&mut schedule, "alone", waiting(Priority::Normal, 0, 1));
    assert_eq!(schedule.units(), 4);
    assert_eq!(units(&mut schedule, 0), [vec!["i", "a", "b", "c"], vec!["alone"], vec!["x"], vec!["d", "e"]]);
}

#[test]
fn a_batch_costs_no_more_than_it_may() {
    let embed = operation(10, 0, 10);
    let mut schedule = Schedule::new(100);
    for cost in [4, 5, 3, 1, 99, 10, 7, u64::MAX] {
        push(&mut schedule, cost, grouped(&embed, 0, cost, 0));
    }
    // An ask that does not fit leads the next batch; an ask that fits into none runs alone.
    assert_eq!(units(&mut schedule, 0), [vec![4, 5, 1], vec![3, 7], vec![99], vec![10], vec![u64::MAX]]);
}

#[test]
fn cohorts_go_only_with_themselves() {
    let embed = operation(10, 5_000, 0);
    let mut schedule = Schedule::new(100);
    fill(&mut schedule, 0..4, |_| grouped(&embed, 0, 1, 0));
    let Take::Unit(failed) = schedule.take(ms(5_000)) else { panic!() };
    let (left, right) = schedule.split();
    assert!(left != right && left != 0 && right != 0);
    for (at, (ticket, _, item)) in failed.into_iter().enumerate() {
        schedule.put_back(ticket, item, grouped(&embed, 0, 1, if at < 2 { left } else { right }));
    }
    push(&mut schedule, 4, grouped(&embed, 5_001, 1, 0));
    // Halves of a failed batch do not wait.
    assert_eq!(units(&mut schedule, 5_001), [vec![0, 1], vec![2, 3]]);
    assert_eq!(unit(schedule.take(ms(11_000))), [4]);
    assert_ne!(schedule.split().0, left);
}

#[test]
fn a_batch_waits_only_if_told_to_and_holds_up_nothing_else() {
    let (embed, now) = (operation(3, 50, 0), 1_000);
    let mut schedule = Schedule::new(100);
    push(&mut schedule, "a", grouped(&embed, now, 1, 0));
    assert!(matches!(schedule.take(ms(now)), Take::NotBefore(at) if at == ms(now + 50)));
    push(&mut schedule, "bulk", waiting(Priority::Bulk, now, now + 100));
    push(&mut schedule, "b", grouped(&embed, now + 20, 1, 0));
    assert_eq!(unit(schedule.take(ms(now + 20))), ["bulk"]);
    assert!(matches!(schedule.take(ms(now + 49)), Take::NotBefore(at) if at == ms(now + 50)), "the first one's wait counts");
    assert_eq!(unit(schedule.take(ms(now + 50))), ["a", "b"]);
    // A full batch goes at once, full by number or by cost.
    fill(&mut schedule, ["c"; 3], |_| grouped(&embed, now + 60, 1, 0));
    assert_eq!(unit(schedule.take(ms(now + 60))), ["c", "c", "c"]);
    let costly = operation(3, 50, 10);
    push(&mut schedule, "d", grouped(&costly, now, 8, 0));
    assert!(matches!(schedule.take(ms(now)), Take::NotBefore(_)));
    push(&mut schedule, "e", grouped(&costly, now, 8, 0));
    assert_eq!(unit(schedule.take(ms(now))), ["d"]);
    assert!(matches!(schedule.take(ms(now)), Take::NotBefore(at) if at == ms(now + 50)));
}

#[test]
fn a_wait_for_others_never_costs_the_deadline() {
    let embed = operation(3, 10_000, 0);
    let mut schedule = Schedule::new(100);
    push(&mut schedule, (), Waiting { deadline: ms(1_000), ..grouped(&embed, 0, 1, 0) });
    assert!(matches!(schedule.take(ms(0)), Take::NotBefore(at) if at == ms(250)));
    assert_eq!(unit(schedule.take(ms(250))), [()]);
    // An ask in a hurry takes asks along that could wait; so does an ask that was put back.
    let ticket = push(&mut schedule, (), grouped(&embed, 1_000, 1, 0));
    assert!(matches!(schedule.take(ms(1_000)), Take::NotBefore(at) if at == ms(11_000)));
    push(&mut schedule, (), Waiting { deadline: ms(1_400), ..grouped(&embed, 1_000, 1, 0) });
    assert!(matches!(schedule.take(ms(1_000)), Take::NotBefore(at) if at == ms(1_100)));
    assert_eq!(unit(schedule.take(ms(1_100))).len(), 2);
    push(&mut schedule, (), grouped(&embed, 1_200, 1, 0));
    assert!(matches!(schedule.take(ms(1_200)), Take::NotBefore(at) if at == ms(11_200)));
    schedule.put_back(ticket, (), grouped(&embed, 1_000, 1, 0));
    assert_eq!(unit(schedule.take(ms(1_200))).len(), 2);
}

#[test]
fn a_pod_is_started_only_when_the_others_do_not_suffice() {
    for (waiting, room, starting, live, max, grows) in [
        (0, 0, 0, 0, 4, false),
        (1, 0, 0, 0, 4, true),
        (1, 0, 1, 1, 4, false),
        (2, 0, 1, 1, 4, true),
        (1, 1, 0, 1, 4, false),
        (3, 1, 1, 2, 4, true),
        (9, 0, 0, 4, 4, false),
    ] {
        assert_eq!(grow(waiting, room, starting, live, max), grows, "{waiting} {room} {starting} {live} {max}");
    }
}

/// Not a benchmark: checks that no search of everything came in. Takes the best of many rounds, because the
/// machine may be busy.
#[test]
fn a_push_and_a_take_cost_about_a_microsecond() {
    for (waits, batch) in [(0, None), (64, None), (1_023, None), (1_023, Some(operation(8, 0, 0)))] {
        let group = batch.map(|operation| Group { operation, cost: 1, cohort: 0 });
        let ask = |step: u64| Waiting { group: group.clone(), ..waiting(Priority::Normal, step, step + 60_000) };
        let mut schedule = Schedule::new(POD_QUEUE_MAX);
        fill(&mut schedule, 0..waits, |item| ask(*item));
        let mut best = Duration::MAX;
        for round in 0..50 {
            let begun = Instant::now();
            let mut left = 500u64;
            while left > 0 {
                // As many come in as went out.
                let Take::Unit(unit) = schedule.take(ms(round)) else {
                    push(&mut schedule, 0, ask(round));
                    continue;
                };
                left = left.saturating_sub(unit.len() as u64);
                fill(&mut schedule, unit.iter().map(|_| 0), |_| ask(round));
            }
            best = best.min(begun.elapsed() / 500);
        }
        assert!(best < Duration::from_micros(10), "{best:?} with {waits} waiting");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        class: usize,
        group: usize,
        cost: u64,
        time_ms: u64,
    },
    /// `put_back`: which asks of the unit come back, and whether in two cohorts.
    Take {
        put_back: Option<bool>,
    },
    Remove {
        which: usize,
    },
    Shed,
    Later {
        by_ms: u64,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, 0..4usize, 1..14u64, 1..400u64)
            .prop_map(|(class, group, cost, time_ms)| Step::Push { class, group, cost, time_ms }),
        4 => prop::option::of(any::<bool>()).prop_map(|put_back| Step::Take { put_back }),
        1 => (0..40usize).prop_map(|which| Step::Remove { which }),
        1 => Just(Step::Shed),
        2 => (1..60u64).prop_map(|by_ms| Step::Later { by_ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever callers and pods do: no ask is lost or given twice, each unit follows the rules, a cohort
    /// never mixes, and the bounds hold.
    #[test]
    fn no_order_of_steps_breaks_the_promises(steps in prop::collection::vec(any_step(), 0..150)) {
        let operations = [operation(4, 0, 0), operation(3, 0, 10), operation(5, 40, 0)];
        let mut schedule = Schedule::new(30);
        // The model: the waiting asks, each with whether it is fresh.
        let mut waits: BTreeMap<Ticket, (Waiting, bool)> = BTreeMap::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Push { class, group, cost, time_ms } => {
                    let group = operations.get(group).map(|operation| Group { operation: operation.clone(), cost, cohort: 0 });
                    let ask = Waiting { group, ..waiting(Priority::ALL[class], now, now + time_ms) };
                    let bulk = waits.values().filter(|(ask, _)| ask.priority == Priority::Bulk).count();
                    let room = waits.len() < 30 && (class < 2 || bulk < 22);
                    match schedule.push(schedule.next_ticket, ask.clone()) {
                        Ok(ticket) => {
                            prop_assert!(room && waits.insert(ticket, (ask, true)).is_none());
                        }
                        Err(refused) => prop_assert!(!room && refused.waiting == waits.len()),
                    }
                }
                Step::Take { put_back } => match schedule.take(ms(now)) {
                    Take::Nothing => prop_assert!(waits.is_empty()),
                    Take::NotBefore(at) => {
                        prop_assert!(at > ms(now));
                        for (ask, fresh) in waits.values() {
                            let group = ask.group.as_ref();
                            prop_assert!(group.is_some_and(|group| Arc::ptr_eq(&group.operation, &operations[2]) && group.cohort == 0));
                            prop_assert!(*fresh && ask.arrived + ms(40) > ms(now) && waits.len() < 5);
                        }
                    }
                    Take::Unit(unit) => {
                        let lead = &unit[0].1;
                        let (mut cost, batch) = (0, lead.group.as_ref().and_then(Group::batch));
                        let mut orders = Vec::new();
                        for (ticket, ask, item) in &unit {
                            prop_assert_eq!(ticket.0, *item);
                            let (known, fresh) = waits.remove(ticket).expect("given twice, or never accepted");
                            prop_assert_eq!((known.key(), known.priority, known.deadline), (ask.key(), ask.priority, ask.deadline));
                            prop_assert_eq!(ask.key(), lead.key());
                            cost += ask.cost();
                            orders.push((ask.priority, fresh, ask.deadline, *ticket));
                        }
                        prop_assert!(orders.is_sorted());
                        prop_assert!(unit.len() <= batch.map_or(1, |batch| batch.items));
                        let cost_max = batch.and_then(|batch| batch.cost.as_ref()).map_or(u64::MAX, |cost| cost.max);
                        prop_assert!(cost <= cost_max || unit.len() == 1);
                        // No ask is passed over except by rule: here nothing gets old enough to count, and
                        // only one operation gathers.
                        for (ticket, (ask, fresh)) in &waits {
                            let gathers = ask.group.as_ref().is_some_and(|group| Arc::ptr_eq(&group.operation, &operations[2]));
                            let is_before = (ask.priority, *fresh, ask.deadline, *ticket) < orders[0];
                            prop_assert!(!is_before || gathers || ms(now) > ask.arrived + ms(AGE_MS) || lead.arrived + ms(AGE_MS) < ms(now));
                            // Greedy: every ask that could have come along did.
                            let fits = ask.key() == lead.key() && cost + ask.cost() <= cost_max;
                            prop_assert!(!fits || batch.is_none_or(|batch| unit.len() == batch.items));
                        }
                        if let Some(split) = put_back {
                            let (first, second) = if split { schedule.split() } else { (0, 0) };
                            let half = unit.len().div_ceil(2);
                            for (at, (ticket, mut ask, item)) in unit.into_iter().enumerate() {
                                if let (true, Some(group)) = (split, &mut ask.group) {
                                    group.cohort = if at < half { first } else { second };
                                }
                                schedule.put_back(ticket, item, ask.clone());
                                waits.insert(ticket, (ask, false));
                            }
                        }
                    }
                },
                Step::Remove { which } => {
                    let ticket = waits.keys().nth(which).copied().unwrap_or(Ticket(which as u64 + 1_000_000));
                    prop_assert_eq!(schedule.remove(ticket), waits.remove(&ticket).map(|_| ticket.0));
                }
                Step::Shed => {
                    for item in schedule.shed(ms(now)) {
                        let (ask, _) = waits.remove(&Ticket(item)).expect("shed twice, or never accepted");
                        prop_assert!(ask.deadline <= ms(now));
                    }
                    prop_assert!(waits.values().all(|(ask, _)| ask.deadline > ms(now)));
                }
                Step::Later { by_ms } => now += by_ms,
            }
            prop_assert_eq!(schedule.len(), waits.len());
            prop_assert_eq!(schedule.counts().iter().sum::<usize>(), waits.len());
            prop_assert_eq!(schedule.is_empty(), waits.is_empty());
            prop_assert_eq!(schedule.next_expiry(), waits.values().map(|(ask, _)| ask.deadline).min());
            prop_assert!(schedule.units() <= waits.len() && (schedule.units() == 0) == waits.is_empty());
            prop_assert!(schedule.candidates.values().all(|some| !some.order.is_empty()));
            prop_assert_eq!(schedule.candidates.values().map(|some| some.order.len()).sum::<usize>(), waits.len());
        }
        let mut left = schedule.drain();
        left.sort();
        prop_assert_eq!(left, waits.keys().map(|ticket| ticket.0).collect::<Vec<_>>());
        prop_assert!(schedule.is_empty() && schedule.candidates.is_empty());
    }
}
