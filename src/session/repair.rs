//! What is done about lost symbols: groups that lost more than their repair symbols are mended.
//!
//! ```text
//! outcome Lost ─► store: more lost than repair symbols? ─► late group ─► mend: lost sources, then new repair symbols
//!                                                                          │ urgent, on a link that did not lose them
//! ```
//!
//! A lost source that is sent again serves the group as well as a new repair symbol does (any k symbols do), and
//! serves by itself when the rest of the round is lost too. So the lost sources go first; new repair symbols are for
//! what must exceed them: the margin against the next loss, and a second round, which sends twice what is lacking,
//! over two links. Nothing is sent when the receiver cannot be waiting any more.
//!
//! Never does: decide how much repair a group gets beforehand (`fec::protection`).
//!
//! Reference: Meng et al., "Hairpin", NSDI 2024 (more redundancy on what is sent again than on what is sent first).

use std::time::Duration;

use super::egress::{Egress, REPAIR_MAX};
use super::groups::GroupShape;
use super::symbols::{Need, SymbolKey};
use super::{Session, overhead};
use crate::base::{GroupId, Instant, LinkId};
use crate::link::Outcome;
use crate::reorder::hold::HOLD_MAX;

/// Symbols that go again ahead of what is committed, at once. More means that a queue overflowed, and a burst that no
/// pacer saw would make it worse: the rest waits for room like any other symbol.
pub(super) const URGENT_MAX: usize = 64;
/// From these loss ratios on one more symbol is sent than is lacking, and two.
const LOSS_FOR_ONE_MORE: f64 = 0.01;
const LOSS_FOR_TWO_MORE: f64 = 0.05;

impl Session {
    /// What became of datagrams we sent on a link.
    pub(super) fn apply_outcomes(&mut self, id: LinkId, now: Instant) {
        for at in 0..self.outcomes.len() {
            match self.outcomes[at] {
                Outcome::Acked { item: key, .. } => self.egress.store.on_acked(key),
                Outcome::Lost { item: key, .. } => {
                    self.links[id.index()].lost_symbols += 1;
                    if let Some(group) = self.egress.store.on_lost(key) {
                        self.egress.late.push(group);
                    }
                }
            }
        }
        self.outcomes.clear();
        if !self.egress.late.is_empty() {
            self.refresh_candidates(now);
            self.mend_groups(Some(id), now);
        }
    }

    /// Sends what late groups lack; `lost_on` is the link that lost it, where it was one.
    pub(super) fn mend_groups(&mut self, lost_on: Option<LinkId>, now: Instant) {
        let mut urgent_left = URGENT_MAX;
        for at in 0..self.egress.late.len() {
            let group = self.egress.late[at];
            if let Some(need) = self.egress.store.need(group)
                && now <= need.opened_at + self.mending_time()
            {
                self.mend(group, &need, lost_on, &mut urgent_left, now);
            }
        }
        self.egress.late.clear();
    }

    /// A hole is waited for at most this long after its frame left: the longest hold time, and a whole round trip because
    /// queues that just grew are not in the smooth figure yet. What comes later is late for sure.
    fn mending_time(&self) -> Duration {
        let srtts = self.links.iter().map(|link| link.sender.srtt());
        HOLD_MAX + srtts.max().unwrap_or_default()
    }

    fn mend(
        &mut self,
        group: GroupId,
        need: &Need,
        lost_on: Option<LinkId>,
        urgent_left: &mut usize,
        now: Instant,
    ) {
        let route = self.egress.store.route_of_group(group);
        let (first, second) = if route == 0 {
            self.links_for_mending(lost_on)
        } else {
            self.pick_two_on(route, 0, now)
        };
        let Some(first) = first else {
            self.await_link(group, need);
            return;
        };
        let ratio = self.links[self.candidate(first).link.index()]
            .sender
            .loss()
            .ratio;
        let again = need.round > 1;
        let wanted = symbols_to_send(need.deficit.into(), ratio, again);
        // A round after the first takes turns between two links.
        let turns = [first, second.filter(|_| again).unwrap_or(first)];
        let mut sent = 0;
        while sent < wanted
            && let Some(key) = self.egress.store.lost_source(group)
        {
            self.send_again(turns[sent % 2], key, need.round, urgent_left, now);
            sent += 1;
            // Where there are no new repair symbols to send, a second round sends copies.
            if again && need.source_count.is_none() && sent < wanted {
                self.send_again(turns[sent % 2], key, need.round, urgent_left, now);
                sent += 1;
            }
        }
        self.add_rows(group, need, wanted - sent);
        for at in 0..self.egress.repairs.len() {
            let key = self.egress.repairs[at];
            self.send_again(turns[sent % 2], key, need.round, urgent_left, now);
            sent += 1;
        }
        self.egress.repairs.clear();
    }

    /// No link can take what a group lacks: its lost sources wait for one.
    fn await_link(&mut self, group: GroupId, need: &Need) {
        for _ in 0..need.deficit {
            let Some(key) = self.egress.store.lost_source(group) else {
                return;
            };
            self.egress.store.on_committed(key, need.round);
            self.requeue(key);
        }
    }

    /// Makes up to `count` further repair symbols of a group.
    fn add_rows(&mut self, group: GroupId, need: &Need, count: usize) {
        let (start, end) = (usize::from(need.rows.0), usize::from(need.rows.1));
        let count = count.min(end.saturating_sub(start)).min(REPAIR_MAX);
        let Some(source_count) = need.source_count.map(usize::from).filter(|_| count > 0) else {
            return;
        };
        let longest_max = overhead::symbol_bytes_max(self.size.datagram_bytes);
        let Egress {
            codec,
            store,
            sources,
            ..
        } = &mut self.egress;
        let longest = store.sources(group, sources);
        if sources.len() != source_count || longest > longest_max {
            return;
        }
        let bytes = longest.next_multiple_of(2);
        let shape = GroupShape {
            group,
            source_count,
            code_rows: end,
            symbol_bytes: bytes,
        };
        let symbols = sources
            .iter()
            .map(|&key| store.get(key).map_or(&[][..], |(_, _, symbol)| symbol));
        let loaded = codec.load(symbols, end, start..start + count, bytes);
        debug_assert_eq!(loaded, Ok(()), "the shape of a group is ours");
        if loaded.is_ok() {
            self.add_repairs(&shape);
        }
    }

    fn send_again(
        &mut self,
        at: usize,
        key: SymbolKey,
        round: u8,
        urgent_left: &mut usize,
        now: Instant,
    ) {
        self.egress.store.on_committed(key, round);
        let symbol = self
            .egress
            .store
            .get(key)
            .map(|(_, _, symbol)| symbol.len());
        // One that is too long is cut anew when its turn comes.
        if *urgent_left > 0 && !symbol.is_some_and(|bytes| self.is_too_long(bytes)) {
            *urgent_left -= 1;
            self.count_resent(key);
            self.place(at, key, true, now);
        } else {
            self.requeue(key);
        }
    }

    /// The two candidates of least delay for what has to come soon: not the WAN that just lost it, unless there is no
    /// other.
    fn links_for_mending(&self, lost_on: Option<LinkId>) -> (Option<usize>, Option<usize>) {
        let bad = lost_on.map(|link| self.links[link.index()].wan);
        let wan_of = |at: usize| self.links[self.candidates[at].link.index()].wan;
        let key = |&at: &usize| (Some(wan_of(at)) == bad, self.candidates[at].delay);
        let first = (0..self.candidates.len()).min_by_key(key);
        let others = (0..self.candidates.len()).filter(|&at| Some(at) != first);
        (first, others.min_by_key(key))
    }
}

/// Symbols to send for a group that lacks `deficit`, over a link that loses `ratio`; `again`: a round failed before.
const fn symbols_to_send(deficit: usize, ratio: f64, again: bool) -> usize {
    let more = if ratio >= LOSS_FOR_TWO_MORE {
        2
    } else if ratio >= LOSS_FOR_ONE_MORE {
        1
    } else {
        0
    };
    if again {
        let (twice, with_more) = (2 * deficit, deficit + 2 * more);
        if twice > with_more { twice } else { with_more }
    } else {
        deficit + more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_round_sends_more_than_the_first_and_loss_more_than_none() {
        assert_eq!(symbols_to_send(3, 0.001, false), 3);
        assert_eq!(symbols_to_send(3, 0.02, false), 4);
        assert_eq!(symbols_to_send(3, 0.1, false), 5);
        assert_eq!(symbols_to_send(3, 0.001, true), 6);
        assert_eq!(symbols_to_send(1, 0.02, true), 3);
    }
}
