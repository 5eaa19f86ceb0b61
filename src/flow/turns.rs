//! The queues of [`super::queue`] and the lists on which they take turns.

use super::codel::CoDel;
use super::meter::Meter;

/// No item, no flow.
pub(super) const NIL: u32 = u32::MAX;

/// One queue: what waits in it, its turn, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) head: u32,
    pub(super) tail: u32,
    /// What the flow may still send in this turn; negative after a large item.
    pub(super) deficit: i64,
    /// On the new or the old list.
    pub(super) listed: bool,
    next: u32,
    pub(super) codel: CoDel,
    pub(super) meter: Meter,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            head: NIL,
            tail: NIL,
            deficit: 0,
            listed: false,
            next: NIL,
            codel: CoDel::default(),
            meter: Meter::default(),
        }
    }
}

/// First-in first-out list of flows, linked through [`Flow::next`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowList {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl Default for FlowList {
    fn default() -> Self {
        Self {
            head: NIL,
            tail: NIL,
        }
    }
}

impl FlowList {
    pub(super) fn push(&mut self, index: u32, flows: &mut [Flow]) {
        flows[index as usize].next = NIL;
        if self.tail == NIL {
            self.head = index;
        } else {
            flows[self.tail as usize].next = index;
        }
        self.tail = index;
    }

    pub(super) fn pop(&mut self, flows: &mut [Flow]) {
        self.head = flows[self.head as usize].next;
        if self.head == NIL {
            self.tail = NIL;
        }
    }
}
