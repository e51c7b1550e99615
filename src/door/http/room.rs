//! Decides who has a connection, and who must leave when there are too many. Pure: given an arrival, it names
//! the connection that leaves.
//!
//! - A connection begins as a *stranger*: it has shown no complete and authorized request yet.
//! - Strangers have a part of the room. The oldest of them leaves for the next one, so that silent
//!   connections cannot keep anybody out.
//! - When the whole room is at work, a new connection gets one of a few in reserve: enough to look at the
//!   server, and to be told `overloaded`.
//!
//! So every connection is let in and gets an answer.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::model::limits;

/// The numbers of connections that one listener has.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// All connections except those in reserve.
    pub connections: usize,
    pub strangers: usize,
    /// The share of strangers that one address may have once their number is at its limit.
    pub peer: usize,
    pub reserve: usize,
}

impl Bounds {
    /// For one of `ways` listeners of a process that may have `files` open files.
    pub fn of(files: u64, ways: usize) -> Bounds {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let mine = files.saturating_mul(limits::SERVE_FILES_PERCENT) / 100 / ways.max(1);
        // Connections that were told to leave may still exist, up to as many as are in reserve, and one was
        // just accepted: all of them count against the same part.
        let reserve = limits::SERVE_RESERVE_MAX.min(mine / 8).max(1);
        let connections = mine.saturating_sub(2 * reserve + 1).clamp(4, limits::SERVE_CONNECTIONS_MAX);
        let strangers = limits::SERVE_STRANGERS_MAX.min(connections / 2);
        let peer = (strangers * limits::SERVE_PEER_PERCENT / 100).max(1);
        Bounds { connections, strangers, peer, reserve }
    }
}

impl Bounds {
    /// The most connections that may exist before the next is accepted: those that were told to leave keep
    /// their open files until they are gone.
    fn most(&self) -> usize {
        self.connections + 2 * self.reserve
    }
}

/// The last thing that a connection was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stranger,
    /// One of its requests is being answered.
    Busy,
    /// Between two requests, since that turn.
    Idle(u64),
}

struct Guest {
    peer: Option<IpAddr>,
    stage: Stage,
    in_reserve: bool,
    /// It was told to leave.
    leaves: bool,
    told: Arc<Notify>,
}

/// The connections of a room. One that was told to leave is on no list. An arrival touches only the
/// connections that it affects.
#[derive(Default)]
struct Guests {
    all: HashMap<u64, Guest>,
    /// Counts arrivals and changes to idle: the smaller number is older.
    turns: u64,
    in_reserve: BTreeSet<u64>,
    /// The number of staying connections that are not in reserve. The lists below have only those.
    regular: usize,
    strangers: BTreeSet<u64>,
    /// Each with the turn since when it is idle.
    idle: BTreeSet<(u64, u64)>,
    /// The strangers of each counted address, and the addresses by their number of strangers.
    peers: HashMap<IpAddr, BTreeSet<u64>>,
    crowds: BTreeSet<(usize, IpAddr)>,
    /// Counts look-ups and changes of lists.
    #[cfg(test)]
    steps: usize,
}

impl Guests {
    fn add(&mut self, id: u64, guest: Guest) {
        self.list(id, &guest, true);
        self.all.insert(id, guest);
    }

    fn remove(&mut self, id: u64) {
        if let Some(guest) = self.all.remove(&id) {
            self.list(id, &guest, false);
        }
    }

    /// Changes a connection and its entries in the lists.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Guest)) -> bool {
        let Some(mut guest) = self.all.remove(&id) else { return false };
        self.list(id, &guest, false);
        change(&mut guest);
        self.add(id, guest);
        true
    }

    fn list(&mut self, id: u64, guest: &Guest, is_there: bool) {
        fn put<T: Ord>(set: &mut BTreeSet<T>, entry: T, is_there: bool) {
            if is_there {
                set.insert(entry);
            } else {
                set.remove(&entry);
            }
        }
        self.step();
        if guest.leaves {
            return;
        }
        if guest.in_reserve {
            return put(&mut self.in_reserve, id, is_there);
        }
        self.regular = if is_there { self.regular + 1 } else { self.regular.saturating_sub(1) };
        match guest.stage {
            Stage::Stranger => put(&mut self.strangers, id, is_there),
            Stage::Idle(since) => return put(&mut self.idle, (since, id), is_there),
            Stage::Busy => return,
        }
        let Some(peer) = guest.peer else { return };
        let theirs = self.peers.entry(peer).or_default();
        let before = theirs.len();
        put(theirs, id, is_there);
        let count = theirs.len();
        if count == 0 {
            self.peers.remove(&peer);
        }
        self.crowds.remove(&(before, peer));
        if count > 0 {
            self.crowds.insert((count, peer));
        }
    }

    /// Sends away the oldest stranger of the address that has the most, if that is more than its share; else
    /// the oldest of all.
    fn send_away_a_stranger(&mut self, share: usize) -> bool {
        self.step();
        let greedy = self.crowds.last().filter(|(count, _)| *count > share);
        let among = greedy.and_then(|(_, peer)| self.peers.get(peer)).unwrap_or(&self.strangers);
        among.first().copied().is_some_and(|id| self.send_away(id))
    }

    fn send_away_the_idlest(&mut self) -> bool {
        self.step();
        self.idle.first().copied().is_some_and(|(_, id)| self.send_away(id))
    }

    fn send_away(&mut self, id: u64) -> bool {
        self.change(id, |guest| {
            guest.leaves = true;
            guest.told.notify_one();
        })
    }

    fn step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }
}

/// The connections of one listener.
pub struct Room {
    bounds: Bounds,
    guests: Mutex<Guests>,
    count: watch::Sender<usize>,
}

impl Room {
    pub fn new(bounds: Bounds) -> Arc<Room> {
        Arc::new(Room { bounds, guests: Mutex::default(), count: watch::Sender::new(0) })
    }

    /// Lets a connection in, and tells another one to leave if it must. `peer`: the address that the
    /// connection counts for; a listed proxy and a Unix socket have none.
    pub fn enter(self: &Arc<Room>, peer: Option<IpAddr>) -> Slot {
        let mut guests = self.guests();
        if guests.strangers.len() >= self.bounds.strangers {
            guests.send_away_a_stranger(self.bounds.peer);
        }
        let in_reserve =
            guests.regular >= self.bounds.connections && !guests.send_away_a_stranger(self.bounds.peer) && !guests.send_away_the_idlest();
        if in_reserve && guests.in_reserve.len() >= self.bounds.reserve {
            // Connections in reserve have short limits and short answers, so the oldest had its chance.
            let oldest = guests.in_reserve.first().copied();
            oldest.map(|id| guests.send_away(id));
        }
        guests.turns += 1;
        let (id, told) = (guests.turns, Arc::new(Notify::new()));
        guests.add(id, Guest { peer, stage: Stage::Stranger, in_reserve, leaves: false, told: told.clone() });
        self.count.send_replace(guests.all.len());
        Slot { room: self.clone(), id, in_reserve, told }
    }

    /// How many connections to accept in a row before the accepted ones get a turn.
    pub fn row(&self) -> usize {
        (self.bounds.strangers / 4).clamp(1, limits::SERVE_ROW_MAX)
    }

    /// Sends away a stranger, if there is one, because the process is out of open files.
    pub fn make_way(&self) {
        self.guests().send_away_a_stranger(self.bounds.peer);
    }

    /// Returns when no connection is left.
    pub async fn emptied(&self) {
        // No error is possible: the room owns the sender.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Returns when all but a few of the connections that were told to leave are gone; until then they keep
    /// their open files.
    pub async fn settled(&self) {
        let most = self.bounds.most();
        let _ = self.count.subscribe().wait_for(|count| *count <= most).await;
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's slot in a room, given back on drop.
pub struct Slot {
    room: Arc<Room>,
    id: u64,
    /// The room is full: this connection may only look at the server, and be told so.
    pub in_reserve: bool,
    told: Arc<Notify>,
}

impl Slot {
    /// Records that its complete and authorized request is being answered.
    pub fn mark_busy(&self) {
        self.set(|_| Stage::Busy);
    }

    /// Records that its answer is written.
    pub fn mark_idle(&self) {
        self.set(Stage::Idle);
    }

    /// Whether it never showed an authorized request.
    pub fn is_stranger(&self) -> bool {
        self.room.guests().all.get(&self.id).is_some_and(|guest| guest.stage == Stage::Stranger)
    }

    /// Returns when it is told to leave for another.
    pub async fn told_to_go(&self) {
        self.told.notified().await;
    }

    fn set(&self, stage: impl FnOnce(u64) -> Stage) {
        let mut guests = self.room.guests();
        guests.turns += 1;
        let turn = guests.turns;
        guests.change(self.id, |guest| guest.stage = stage(turn));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        guests.remove(self.id);
        self.room.count.send_replace(guests.all.len());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    const BOUNDS: Bounds = Bounds { connections: 8, strangers: 4, peer: 2, reserve: 2 };

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    /// Which of them were told to go, by their place in the list.
    fn told(slots: &[Slot]) -> Vec<usize> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut is_told = |slot: &Slot| std::pin::pin!(slot.told_to_go()).poll(&mut context).is_ready();
        let mut found = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            if is_told(slot) {
                found.push(at);
                slot.told.notify_one();
            }
        }
        found
    }

    #[test]
    fn the_oldest_silent_one_goes_for_the_next_and_none_that_works() {
        let room = Room::new(BOUNDS);
        let mut slots: Vec<Slot> = (0..4).map(|_| room.enter(None)).collect();
        assert_eq!(told(&slots), [0; 0]);
        slots[0].mark_busy();
        slots.push(room.enter(None));
        assert_eq!(told(&slots), [0; 0], "one of them is no stranger any more");
        slots.push(room.enter(None));
        assert_eq!(told(&slots), [1], "not the first, who works");
        // Whoever shows a request keeps its place from then on, however many strangers come.
        slots[5].mark_busy();
        slots[5].mark_idle();
        slots.extend((0..100).map(|_| room.enter(None)));
        let gone = told(&slots);
        assert_eq!(gone, [&[1, 2, 3, 4][..], &(6..102).collect::<Vec<_>>()].concat());
    }

    #[test]
    fn an_address_with_more_than_its_share_loses_its_own_and_a_listed_proxy_does_not() {
        let room = Room::new(BOUNDS);
        // A slow one, then three of one address, and another one: the greedy one's oldest goes, not the slow
        // one.
        let mut slots = vec![room.enter(peer(1)), room.enter(peer(2)), room.enter(peer(2)), room.enter(peer(2))];
        slots.push(room.enter(peer(3)));
        assert_eq!(told(&slots), [1]);
        // Within the shares, and behind a listed proxy (which has no address here), the oldest goes.
        let room = Room::new(BOUNDS);
        let mut slots = vec![room.enter(peer(1)), room.enter(None), room.enter(None), room.enter(None)];
        slots.push(room.enter(None));
        assert_eq!(told(&slots), [0]);
    }

    #[test]
    fn a_room_at_work_has_a_reserve_for_whoever_comes_and_the_idle_go_before_that() {
        let room = Room::new(BOUNDS);
        let mut slots: Vec<Slot> = (0..8)
            .map(|_| {
                let slot = room.enter(None);
                slot.mark_busy();
                slot
            })
            .collect();
        slots.push(room.enter(None));
        assert!(slots[8].in_reserve && told(&slots).is_empty());
        slots.push(room.enter(None));
        slots.push(room.enter(None));
        assert!(slots[10].in_reserve);
        assert_eq!(told(&slots), [8], "the oldest in reserve, and none that works");
        slots[3].mark_idle();
        slots[2].mark_idle();
        slots.push(room.enter(None));
        assert!(!slots[11].in_reserve);
        assert_eq!(told(&slots), [3, 8], "the one that rests for longest");
    }

    /// Steps that so many knocks cost each in a room which has many strangers, workers and idle ones of
    /// several addresses.
    fn steps_of_a_knock(bounds: Bounds) -> usize {
        let room = Room::new(bounds);
        let mut slots = Vec::new();
        for at in 0..bounds.connections {
            let slot = room.enter(peer(at as u8));
            match at % 3 {
                0 => slot.mark_busy(),
                1 => slot.mark_idle(),
                _ => {}
            }
            slots.push(slot);
        }
        let before = room.guests().steps;
        const KNOCKS: usize = 1_000;
        slots.extend((0..KNOCKS).map(|at| room.enter(peer(at as u8))));
        let after = room.guests().steps;
        assert!(slots.len() > bounds.connections && room.guests().regular <= bounds.connections);
        (after - before).div_ceil(KNOCKS)
    }

    #[test]
    fn a_knock_costs_the_same_in_a_room_of_a_few_and_of_thousands() {
        let of = |connections| steps_of_a_knock(Bounds { connections, strangers: connections / 4, peer: 4, reserve: 4 });
        let (few, many) = (of(64), of(4_096));
        assert!(few <= 8 && many <= 8, "{few} steps among 64, {many} among 4096");
    }

    #[test]
    fn what_is_listed_is_what_there_is() {
        let room = Room::new(BOUNDS);
        let mut slots = Vec::new();
        // Whatever they do, and in whatever order they leave.
        for at in 0..2_000_usize {
            slots.push(room.enter(peer((at % 5) as u8)));
            let of = |step: usize| at.wrapping_mul(step) % slots.len();
            slots[of(7)].mark_busy();
            slots[of(11)].mark_idle();
            if at % 3 == 0 {
                slots.swap_remove(of(13));
            }
            let guests = room.guests();
            let count = |of: &dyn Fn(&Guest) -> bool| guests.all.values().filter(|guest| !guest.leaves && of(guest)).count();
            assert_eq!(guests.in_reserve.len(), count(&|guest| guest.in_reserve));
            assert_eq!(guests.regular, count(&|guest| !guest.in_reserve));
            assert_eq!(guests.strangers.len(), count(&|guest| !guest.in_reserve && guest.stage == Stage::Stranger));
            assert_eq!(guests.idle.len(), count(&|guest| !guest.in_reserve && matches!(guest.stage, Stage::Idle(_))));
            assert_eq!(guests.peers.values().map(BTreeSet::len).sum::<usize>(), guests.strangers.len());
            assert_eq!(guests.crowds.iter().map(|(count, _)| count).sum::<usize>(), guests.strangers.len());
        }
        drop(slots);
        let guests = room.guests();
        assert!(guests.all.is_empty() && guests.strangers.is_empty() && guests.idle.is_empty() && guests.peers.is_empty());
        assert!(guests.crowds.is_empty() && guests.in_reserve.is_empty() && guests.regular == 0);
    }

    #[test]
    fn bounds_leave_open_files_for_pods() {
        for (files, ways) in [(1_024, 2), (1_024, 3), (256, 2), (192, 1), (1 << 20, 2)] {
            let bounds = Bounds::of(files, ways);
            let all = (bounds.most() + 1) * ways;
            assert!(all <= files as usize * limits::SERVE_FILES_PERCENT / 100, "{all} of {files} with {ways} ways in: {bounds:?}");
        }
        let bounds = Bounds::of(1_024, 2);
        assert_eq!((bounds.connections, bounds.strangers, bounds.peer, bounds.reserve), (191, 95, 23, 32));
        let bounds = Bounds::of(1 << 20, 2);
        assert_eq!((bounds.connections, bounds.strangers), (limits::SERVE_CONNECTIONS_MAX, limits::SERVE_STRANGERS_MAX));
        assert!(bounds.connections > limits::SERVE_CALLS_MAX, "connections are more than calls");
    }

    #[tokio::test]
    async fn a_room_is_empty_when_the_last_one_left() {
        let room = Room::new(BOUNDS);
        let (one, other) = (room.enter(None), room.enter(None));
        let left = tokio::spawn(async move {
            drop(one);
            tokio::task::yield_now().await;
            drop(other);
        });
        room.emptied().await;
        left.await.unwrap();
    }
}
