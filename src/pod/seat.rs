//! A pod's place in its pool: how its driver gets work and tells what became of it.
//!
//! Apart from `pool.rs`, which callers come to: here is the side that drivers see.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    handle::{Placed, Request, Shared},
    poison::Ended,
    pool::{Book, Inner, Member, digest, overdue},
    schedule::{Take, Ticket},
};
use crate::model::Fault;

/// A pod's place in its pool: how its driver gets work and tells what became of it.
#[derive(Clone)]
pub struct Seat {
    pub(super) pool: Weak<Inner>,
    pub(super) id: u64,
}

/// What a driver has to tell when it asks for work.
#[derive(Default)]
pub(super) struct Report {
    /// Asks that have their outcome.
    pub over: Vec<Ticket>,
    pub good: u64,
    /// Ended by a fault of the pod.
    pub failed: u64,
    /// Inputs that were answered well, while some are suspected.
    pub cleared: Vec<[u8; 32]>,
    /// Units that ended well: how long each took, how many items it had.
    pub served: Vec<(Duration, usize)>,
}

/// What a driver is given.
#[derive(Default)]
pub(super) struct Taken {
    pub units: Vec<Vec<Placed>>,
    /// When to ask again although nothing happens: a batch is being gathered.
    pub again: Option<Instant>,
}

/// How a pod's life ended, for the pool.
pub(super) struct End {
    /// Nobody asked it to go.
    pub unwanted: bool,
    pub was_ready: bool,
    /// It had answered well.
    pub was_useful: bool,
    /// Ended by SIGKILL before it was ready, and not by us: whoever did that, the recipe is not to blame.
    pub was_killed_at_start: bool,
    pub fault: Fault,
}

impl Seat {
    /// The pod is ready for its first unit.
    pub(super) fn ready(&self) {
        self.with(|pool, book| {
            if let Some(member) = book.members.iter_mut().find(|member| member.seat == self.id) {
                member.ready = true;
            }
            pool.offer(book);
        });
    }

    /// Tells what is over and takes what there is room for. `units`: in hand now. `ahead`: the pod says what it has begun, so that it may be
    /// sent more than it runs.
    pub(super) fn turn(&self, report: &mut Report, units: usize, ahead: bool, shared: &Arc<Shared>) -> Taken {
        let mut taken = Taken::default();
        let Some(pool) = self.pool.upgrade() else { return taken };
        let now = pool.now();
        let mut book = pool.book();
        book.note(report, now);
        if !report.cleared.is_empty() {
            pool.suspects.store(!book.poison.is_empty(), Ordering::Relaxed);
        }
        let late = book.schedule.shed(now);
        let free = |member: &Member| member.ready && !member.leaving && member.units < pool.concurrency;
        let mut serving = 0;
        let mut others_free = false;
        for member in &mut book.members {
            if member.seat == self.id {
                member.units = units;
                if member.leaving || !member.ready {
                    serving = 0;
                    break;
                }
                serving += 1;
            } else if member.ready && !member.leaving {
                serving += 1;
                others_free |= free(member);
            }
        }
        loop {
            if serving == 0 {
                break;
            }
            let in_hand = units + taken.units.len();
            if !book.solo.is_empty() {
                // It goes alone; a pod that is at work takes nothing else until it is free for it.
                if in_hand == 0
                    && let Some(placed) = book.solo.pop_front()
                {
                    book.placed.insert(placed.ticket, shared.clone());
                    taken.units.push(vec![placed]);
                }
                break;
            }
            if in_hand >= pool.concurrency {
                let share = book.schedule.ahead().min(book.schedule.units().div_ceil(serving) + taken.units.len());
                if !ahead || others_free || in_hand >= pool.concurrency + share {
                    break;
                }
            }
            match book.schedule.take(now) {
                Take::Nothing => break,
                Take::NotBefore(at) => {
                    taken.again = Some(pool.born + at);
                    break;
                }
                Take::Unit(items) => {
                    book.placed.extend(items.iter().map(|(ticket, ..)| (*ticket, shared.clone())));
                    let unit = items.into_iter().map(|(ticket, waiting, pending)| Placed { ticket, waiting, pending });
                    taken.units.push(unit.collect());
                }
            }
        }
        if let Some(member) = book.members.iter_mut().find(|member| member.seat == self.id) {
            member.units = units + taken.units.len();
        }
        if others_free {
            pool.offer(&mut book);
        }
        let idle = !report.over.is_empty() && book.placed.is_empty() && book.schedule.is_empty();
        report.clear();
        drop(book);
        pool.refuse(late, &overdue());
        if idle {
            pool.quiet.notify_waiters();
        }
        taken
    }

    /// Asks of this pod that wait for another now: never begun, harmless to repeat, or halves of a batch that failed.
    pub(super) fn put_back(&self, asks: Vec<Placed>, alone: bool) {
        if asks.is_empty() {
            return;
        }
        let failed = self.with(|pool, book| {
            for placed in asks {
                book.placed.remove(&placed.ticket);
                if placed.pending.end.is_closed() {
                    continue;
                }
                book.repeated += u64::from(placed.pending.begun > 0);
                match alone {
                    true => book.solo.push_back(placed),
                    false => book.schedule.put_back(placed.ticket, placed.pending, placed.waiting),
                }
            }
            pool.offer(book);
            pool.grow(book, pool.now(), false)
        });
        if let Some(failed) = failed {
            failed.send();
        }
    }

    /// Two names for the halves of a failed batch.
    pub(super) fn split(&self) -> (u64, u64) {
        self.with(|_, book| book.schedule.split()).unwrap_or((1, 2))
    }

    /// That input ended its pod, alone at work there. Whether it is given up now.
    pub(super) fn ended(&self, request: &Request, how: Ended) -> Option<Fault> {
        let digest = digest(request);
        self.with(|pool, book| {
            let poison = book.poison.ended(digest, how, pool.now());
            pool.suspects.store(true, Ordering::Relaxed);
            poison.then(|| pool.poisoned(&request.operation.name, Duration::ZERO))
        })
        .flatten()
    }

    /// Whether inputs are suspected of having ended a pod.
    pub(super) fn has_suspects(&self) -> bool {
        self.pool.upgrade().is_some_and(|pool| pool.suspects.load(Ordering::Relaxed))
    }

    /// Whether a pod that has nothing to do may go; from then on nothing is offered to it.
    pub(super) fn may_idle_out(&self) -> bool {
        self.with(|pool, book| {
            let staying = book.members.iter().filter(|member| !member.leaving).count();
            let spare = staying > if book.used { pool.spec.min } else { 0 };
            spare && book.schedule.is_empty() && book.solo.is_empty() && book.leave(self.id)
        })
        .unwrap_or(true)
    }

    /// The pod takes nothing any more.
    pub(super) fn retire(&self) {
        let failed = self.with(|pool, book| {
            book.leave(self.id);
            pool.grow(book, pool.now(), false)
        });
        if let Some(failed) = failed {
            failed.send();
        }
    }

    /// No process of the pod is left.
    pub(super) fn over(&self, end: End) {
        if let Some(pool) = self.pool.upgrade() {
            pool.over(self.id, end);
        }
    }

    /// Tells what is over without taking anything.
    pub(super) fn report(&self, report: &mut Report) {
        self.with(|pool, book| {
            book.note(report, pool.now());
            report.clear();
            pool.quiet.notify_waiters();
        });
    }

    fn with<T>(&self, act: impl FnOnce(&Inner, &mut Book) -> T) -> Option<T> {
        let pool = self.pool.upgrade()?;
        let mut book = pool.book();
        let done = act(&pool, &mut book);
        drop(book);
        Some(done)
    }
}

impl Report {
    pub fn is_empty(&self) -> bool {
        self.over.is_empty() && self.served.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.over.clear();
        self.served.clear();
        self.cleared.clear();
        (self.good, self.failed) = (0, 0);
    }
}
