//! FQ-CoDel (RFC 8290) over items of any size: whose turn it is when inner packets wait for the links.
//!
//! Holds items of type `T` for the caller (frames, as a rule), never looks into them, and never drops one by
//! itself: what must go is handed back. Superframes of up to 64 KiB are single items; all accounts are in bytes.
//!
//! ```text
//!            hash ──► 1024 queues, each with its CoDel ──┐
//!  enqueue ─┤                                            ├─► new list first, then old list ──► dequeue
//!            over the limit: head of the fattest queue   │   a queue whose deficit is used up goes to the
//!            ──► back to the caller                      ┘   end of the old list with one quantum more
//! ```
//!
//! Invariants: a queue with items is on exactly one list; `bytes` is the sum over all items; no allocation after
//! construction. A dequeue costs one step for each quantum sent before, so it is O(1) in bytes and not in calls.

use std::time::Duration;

use super::codel::Params;
use super::turns::{Flow, FlowList, NIL};
use crate::base::{Instant, Rate};

/// Sizes and times of a [`FlowQueue`].
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Number of queues, a power of two. Two flows in one queue only share a turn.
    pub flows: u32,
    /// Bytes each queue may send in its turn: one full Ethernet frame, so that small packets never wait for more
    /// than one large packet of each other flow.
    pub quantum: u32,
    /// CoDel's tolerated standing delay.
    pub target: Duration,
    /// CoDel's interval, about a worst-case RTT.
    pub interval: Duration,
    /// Most bytes that wait.
    pub bytes_max: u64,
    /// Most items that wait.
    pub items_max: u32,
    /// Wait beyond which a flow that ignored several signals is not worth a mark any more.
    pub sojourn_max: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            flows: 1024,
            quantum: 1514,
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            // 85 ms at 400 Mbit/s; CoDel keeps well-behaved flows far below.
            bytes_max: 4 << 20,
            // As many as the frame store has small slots.
            items_max: 4096,
            sojourn_max: Duration::from_millis(100),
        }
    }
}

/// What CoDel wants for an item that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Pass,
    /// Signal congestion with it: mark it CE, else trim a segment off it, else drop it and dequeue again.
    Congested,
}

/// One item that leaves.
#[derive(Debug, PartialEq, Eq)]
pub struct Dequeued<T> {
    /// The item.
    pub item: T,
    /// The flow hash it came with.
    pub hash: u64,
    /// The length it came with, in bytes.
    pub bytes: u32,
    /// The flow came from the new list: it has been asking for less than its share.
    pub sparse: bool,
    /// What CoDel wants.
    pub verdict: Verdict,
    /// The flow ignored several signals and its queue is beyond `sojourn_max`: a mark is not enough, drop it.
    pub overdue: bool,
    /// How long it waited.
    pub sojourn: Duration,
    /// The rate at which its flow arrived, averaged over [`super::meter::RATE_SPAN`]: the most of the last half second,
    /// also as it stood when others of it left in the last half second.
    pub rate: Rate,
}

/// The flow queue.
#[derive(Debug)]
pub struct FlowQueue<T> {
    config: QueueConfig,
    codel: Params,
    /// Empty until the first item comes, as is `items` as far as none of its places was ever used: a queue that nothing
    /// waits in keeps a few bytes in memory.
    flows: Vec<Flow>,
    /// Bytes of each flow, beside the flows because the search for the fattest reads them all.
    backlogs: Vec<u64>,
    items: Vec<Item<T>>,
    free: u32,
    new_list: FlowList,
    old_list: FlowList,
    bytes: u64,
    count: u32,
    shedding: Option<Shedding>,
}

impl<T> FlowQueue<T> {
    /// An empty queue with memory reserved for all it may ever hold.
    ///
    /// # Panics
    /// If `flows` is not a power of two, or `quantum` or `items_max` is 0.
    pub fn new(config: QueueConfig) -> Self {
        assert!(
            config.flows.is_power_of_two(),
            "flows are indexed by masking"
        );
        assert!(
            config.quantum > 0 && config.items_max > 0,
            "nothing could ever leave or enter"
        );
        Self {
            config,
            codel: Params {
                target: config.target,
                interval: config.interval,
            },
            flows: Vec::with_capacity(config.flows as usize),
            backlogs: vec![0; config.flows as usize],
            // One slot more than the limit: the newcomer is in before somebody else is put out.
            items: Vec::with_capacity(config.items_max as usize + 1),
            free: NIL,
            new_list: FlowList::default(),
            old_list: FlowList::default(),
            bytes: 0,
            count: 0,
            shedding: None,
        }
    }

    /// Appends an item of `bytes` to the queue of `hash`. When that is more than the limits allow, the head of the
    /// fattest queue comes back, which may be the item itself; it counts as `QueueFull`. A batch is due then:
    /// call [`Self::shed`] until `None`.
    #[must_use = "the returned item was dropped from the queue and must be freed and counted"]
    pub fn enqueue(&mut self, hash: u64, bytes: u32, item: T, now: Instant) -> Option<T> {
        let index = self.place(Item {
            value: Some(item),
            hash,
            bytes,
            enqueued: now,
            next: NIL,
        });
        if self.flows.is_empty() {
            self.flows
                .resize(self.config.flows as usize, Flow::default());
        }
        let flow_index = self.flow_of(hash);
        let flow = &mut self.flows[flow_index as usize];
        flow.meter.on_arrival(bytes, now);
        if flow.tail == NIL {
            flow.head = index;
        } else {
            self.items[flow.tail as usize].next = index;
        }
        flow.tail = index;
        self.backlogs[flow_index as usize] += u64::from(bytes);
        self.bytes += u64::from(bytes);
        self.count += 1;
        if !flow.listed {
            flow.listed = true;
            flow.deficit = i64::from(self.config.quantum);
            self.new_list.push(flow_index, &mut self.flows);
        }
        if self.is_over_limit() {
            self.shed()
        } else {
            None
        }
    }

    /// Puts an item into a free slot.
    fn place(&mut self, item: Item<T>) -> u32 {
        let index = self.free;
        if let Some(slot) = self.items.get_mut(index as usize) {
            self.free = slot.next;
            *slot = item;
            return index;
        }
        self.items.push(item);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "one more than `items_max`, a u32, at most"
        )]
        let count = self.items.len() as u32;
        count - 1
    }

    /// The rest of a batch that [`Self::enqueue`] began. Searching the fattest queue is what costs, so each search
    /// is good for up to [`SHED_ITEMS_MAX`] items or half of the queue.
    #[must_use = "the returned item was dropped from the queue and must be freed and counted"]
    pub fn shed(&mut self) -> Option<T> {
        let mut batch = match self.shedding {
            Some(batch) if batch.is_worth_going_on(&self.backlogs) => batch,
            _ if self.is_over_limit() => self.start_shedding(),
            _ => {
                self.shedding = None;
                return None;
            }
        };
        let item = self.pop(batch.flow)?;
        self.flows[batch.flow as usize].codel.on_overflow();
        batch.items_left -= 1;
        batch.bytes_left -= i64::from(item.bytes);
        self.shedding = Some(batch);
        Some(item.value)
    }

    /// The next item to send, by deficit round robin. `None` when nothing waits.
    pub fn dequeue(&mut self, now: Instant) -> Option<Dequeued<T>> {
        loop {
            let sparse = self.new_list.head != NIL;
            let list = if sparse {
                &mut self.new_list
            } else {
                &mut self.old_list
            };
            let index = list.head;
            if index == NIL {
                return None;
            }
            let flow = &mut self.flows[index as usize];
            if flow.deficit <= 0 {
                flow.deficit += i64::from(self.config.quantum);
                list.pop(&mut self.flows);
                self.old_list.push(index, &mut self.flows);
                continue;
            }
            let Some(popped) = self.pop(index) else {
                self.retire(index, sparse);
                continue;
            };
            return Some(self.leave(index, popped, sparse, now));
        }
    }

    /// Gives the turn back that a dropped item took: `hash` and `bytes` as they were dequeued.
    pub fn refund(&mut self, hash: u64, bytes: u32) {
        let flow = self.flow_of(hash);
        if let Some(flow) = self.flows.get_mut(flow as usize)
            && flow.listed
        {
            // Never more than a fresh flow has, or drops would buy bandwidth.
            let full = i64::from(self.config.quantum);
            flow.deficit = (flow.deficit + i64::from(bytes)).min(full.max(flow.deficit));
        }
    }

    /// Flows of which something waits. Looks at all queues.
    pub fn waiting_flows(&self) -> usize {
        self.backlogs.iter().filter(|backlog| **backlog > 0).count()
    }

    /// Hands everything out, in no particular order, and forgets all state of the flows.
    pub fn drain(&mut self, mut on_item: impl FnMut(T)) {
        for index in (0..self.config.flows).take(self.flows.len()) {
            while let Some(item) = self.pop(index) {
                on_item(item.value);
            }
        }
        self.flows.fill(Flow::default());
        (self.new_list, self.old_list) = (FlowList::default(), FlowList::default());
        self.shedding = None;
    }

    /// Changes CoDel's tolerated standing delay, and the round trip in which flows can answer a signal: no more than one is
    /// given in it, and none within the configured interval.
    pub fn set_target(&mut self, target: Duration, round_trip: Duration) {
        let interval = self.config.interval.max(round_trip);
        self.codel = Params { target, interval };
    }

    /// Items that wait.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes that wait.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    const fn is_over_limit(&self) -> bool {
        self.bytes > self.config.bytes_max || self.count > self.config.items_max
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "masked below `flows`, a u32"
    )]
    const fn flow_of(&self, hash: u64) -> u32 {
        hash as u32 & (self.config.flows - 1)
    }

    /// Takes the head off a flow's queue.
    fn pop(&mut self, index: u32) -> Option<Popped<T>> {
        let flow = &mut self.flows[index as usize];
        let slot_index = flow.head;
        if slot_index == NIL {
            return None;
        }
        let slot = &mut self.items[slot_index as usize];
        flow.head = slot.next;
        if flow.head == NIL {
            flow.tail = NIL;
        }
        slot.next = self.free;
        self.free = slot_index;
        self.backlogs[index as usize] -= u64::from(slot.bytes);
        self.bytes -= u64::from(slot.bytes);
        self.count -= 1;
        let value = slot.value.take()?;
        Some(Popped {
            value,
            hash: slot.hash,
            bytes: slot.bytes,
            enqueued: slot.enqueued,
        })
    }

    /// Accounts for an item that is sent, and asks CoDel about it.
    fn leave(&mut self, index: u32, popped: Popped<T>, sparse: bool, now: Instant) -> Dequeued<T> {
        let flow = &mut self.flows[index as usize];
        flow.deficit -= i64::from(popped.bytes);
        let sojourn = now.since(popped.enqueued);
        // What leaves is not a queue. A superframe that waits alone waited for its own predecessor's transmission
        // time, and a rest of one quantum is gone in the next turn (RFC 8289 section 5.4 says one MTU).
        let standing = self.backlogs[index as usize] > u64::from(self.config.quantum);
        let congested = flow.codel.on_dequeue(sojourn, standing, now, &self.codel);
        let overdue = sojourn > self.config.sojourn_max
            && flow.codel.signals_unheeded() >= UNHEEDED_SIGNALS_MAX;
        Dequeued {
            item: popped.value,
            hash: popped.hash,
            bytes: popped.bytes,
            sparse,
            verdict: if congested || overdue {
                Verdict::Congested
            } else {
                Verdict::Pass
            },
            overdue,
            sojourn,
            rate: flow.meter.on_departure(now),
        }
    }

    /// Takes an empty queue off its list. One from the new list passes the old list first, or it could come back
    /// as new forever and starve the old ones (RFC 8290 section 4.2).
    fn retire(&mut self, index: u32, from_new: bool) {
        let list = if from_new {
            &mut self.new_list
        } else {
            &mut self.old_list
        };
        list.pop(&mut self.flows);
        if from_new && self.old_list.head != NIL {
            self.old_list.push(index, &mut self.flows);
        } else {
            self.flows[index as usize].listed = false;
        }
    }

    fn start_shedding(&self) -> Shedding {
        let mut flow = 0;
        let mut most = 0;
        for (index, &backlog) in (0_u32..).zip(&self.backlogs) {
            if backlog > most {
                (flow, most) = (index, backlog);
            }
        }
        let batch_bytes_max = u64::from(self.config.quantum) * u64::from(SHED_ITEMS_MAX);
        let bytes_left = i64::try_from(batch_bytes_max.min(most / 2)).unwrap_or(i64::MAX);
        Shedding {
            flow,
            items_left: SHED_ITEMS_MAX,
            bytes_left,
        }
    }
}

/// Most items given up after one search for the fattest queue (RFC 8290 section 4.1).
pub const SHED_ITEMS_MAX: u32 = 64;
/// Signals that a flow must have ignored before waiting too long costs it packets. A TCP has answered the first
/// one after one RTT; the fourth comes 230 ms after the first.
const UNHEEDED_SIGNALS_MAX: u32 = 4;
#[derive(Debug)]
struct Item<T> {
    /// `None` in free slots.
    value: Option<T>,
    hash: u64,
    bytes: u32,
    enqueued: Instant,
    /// Next of the flow, or next free.
    next: u32,
}

struct Popped<T> {
    value: T,
    hash: u64,
    bytes: u32,
    enqueued: Instant,
}

/// A batch of items being given up.
#[derive(Clone, Copy, Debug)]
struct Shedding {
    flow: u32,
    items_left: u32,
    bytes_left: i64,
}

impl Shedding {
    fn is_worth_going_on(&self, backlogs: &[u64]) -> bool {
        self.items_left > 0 && self.bytes_left > 0 && backlogs[self.flow as usize] > 0
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
