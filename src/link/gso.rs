//! Whether the runs of a link may leave as one segmented send (UDP GSO), judged by what the receiver gets.
//!
//! ```text
//!   On ──── tails of even runs vanish ────► Uneven ──── tails of uneven runs vanish ────► Off
//!   (any run)                    (a run never ends with a full datagram)     (each datagram by itself)
//! ```
//!
//! Some kernels (7.0.0 to 7.1.4, and what took the same change) damage a segmented send on network cards with partial
//! offload when its last datagram is as long as the others: the length or checksum of the last, or of all, is wrong.
//! Nothing at the sender shows it; at the receiver it is loss. So the loss of last datagrams is compared with the loss
//! of datagrams that left by themselves. A buffer that is too small for a run also takes its end, but then it takes
//! what stands before the end as well; that is no fault of segmentation and is left to rate control.
//!
//! What was found holds for as long as the session: the kernel does not change. Never sends, never reads a clock.

/// What the configuration wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Segmented sends while they arrive.
    #[default]
    Auto,
    /// This, whatever is lost.
    Exactly(Shape),
}

/// Which runs a link may have, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Any.
    On,
    /// Those whose last datagram is shorter than the others.
    Uneven,
    /// None: each datagram is a send of its own.
    Off,
}

impl Shape {
    /// The name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Uneven => "uneven",
            Self::Off => "off",
        }
    }
}

/// How a datagram left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carriage {
    /// By itself.
    #[default]
    Alone,
    /// In a run, not as the last.
    Within,
    /// As the last of a run, as long as the others.
    EvenTail,
    /// As the last of a run, shorter than the others.
    UnevenTail,
}

/// Tails judged together.
const TAILS: u32 = 24;
/// Datagrams by themselves that must have a known fate: heartbeats alone are this many in less than a second.
const ALONE_MIN: u32 = 8;
/// Counts beyond this are halved, so that the judgement is about the recent past.
const COUNT_MAX: u32 = 512;

/// Fates of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    acked: u32,
    lost: u32,
}

impl Count {
    const fn total(self) -> u32 {
        self.acked + self.lost
    }

    /// Whether more than `parts` of `of` were lost.
    const fn lost_over(self, parts: u32, of: u32) -> bool {
        self.lost * of > self.total() * parts
    }
}

/// What is known of one link.
#[derive(Clone, Debug)]
pub struct Trust {
    shape: Shape,
    judge: bool,
    alone: Count,
    within: Count,
    tails: Count,
}

impl Trust {
    /// As the configuration says; nothing is known yet.
    pub fn new(wanted: Wanted) -> Self {
        let (shape, judge) = match wanted {
            Wanted::Auto => (Shape::On, true),
            Wanted::Exactly(shape) => (shape, false),
        };
        Self {
            shape,
            judge,
            alone: Count::default(),
            within: Count::default(),
            tails: Count::default(),
        }
    }

    /// Which runs may leave at present.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// What became of a datagram.
    pub fn on_fate(&mut self, carriage: Carriage, lost: bool) {
        if !self.judge {
            return;
        }
        let suspect = match self.shape {
            Shape::On => Carriage::EvenTail,
            Shape::Uneven => Carriage::UnevenTail,
            Shape::Off => return,
        };
        let count = match carriage {
            Carriage::Alone => &mut self.alone,
            Carriage::Within => &mut self.within,
            tail if tail == suspect => &mut self.tails,
            // A tail of the other kind is none of the suspect: as good as alone while even runs are judged.
            Carriage::UnevenTail => &mut self.alone,
            Carriage::EvenTail => return,
        };
        if lost {
            count.lost += 1;
        } else {
            count.acked += 1;
        }
        if count.total() > COUNT_MAX {
            count.lost /= 2;
            count.acked /= 2;
        }
        if carriage == suspect && self.tails.total() >= TAILS {
            self.judge();
        }
    }

    fn judge(&mut self) {
        if !self.tails.lost_over(1, 2) {
            // They arrive. Only tails are judged by the dozen; what stands beside them is averaged for longer.
            self.tails = Count::default();
            return;
        }
        if self.alone.total() < ALONE_MIN {
            return;
        }
        // All of a run or its last datagram alone; anything between is a buffer that ran over.
        let torn = self.within.lost_over(1, 10) && !self.within.lost_over(9, 10);
        let others_arrive = !self.alone.lost_over(1, 4);
        if others_arrive && !torn {
            self.shape = match self.shape {
                Shape::On => Shape::Uneven,
                Shape::Uneven | Shape::Off => Shape::Off,
            };
        }
        (self.alone, self.within) = (Count::default(), Count::default());
        self.tails = Count::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of `n` datagrams over a path; `lost(position from the end, even)` says what it swallows. A single datagram
    /// follows each run.
    fn runs(trust: &mut Trust, count: usize, n: usize, lost: impl Fn(usize, bool) -> bool) {
        for _ in 0..count {
            let even = trust.shape() == Shape::On;
            for back in (0..n).rev() {
                let carriage = match (back, trust.shape()) {
                    (_, Shape::Off) => Carriage::Alone,
                    (0, _) if even => Carriage::EvenTail,
                    (0, _) => Carriage::UnevenTail,
                    _ => Carriage::Within,
                };
                let vanishes = carriage != Carriage::Alone && lost(back, even);
                trust.on_fate(carriage, vanishes);
            }
            trust.on_fate(Carriage::Alone, false);
        }
    }

    #[test]
    fn a_kernel_that_spoils_the_last_of_equal_datagrams_is_given_uneven_runs() {
        for n in [2, 10, 40] {
            let mut trust = Trust::new(Wanted::Auto);
            runs(&mut trust, 60, n, |back, even| even && back == 0);
            assert_eq!(trust.shape(), Shape::Uneven);
            // All of the run instead of its end.
            let mut trust = Trust::new(Wanted::Auto);
            runs(&mut trust, 60, n, |_, even| even);
            assert_eq!(trust.shape(), Shape::Uneven);
        }
    }

    #[test]
    fn a_device_that_spoils_every_run_gets_none() {
        let mut trust = Trust::new(Wanted::Auto);
        runs(&mut trust, 120, 10, |_, _| true);
        assert_eq!(trust.shape(), Shape::Off);
    }

    #[test]
    fn loss_of_the_link_is_no_fault_of_segmentation() {
        let mut rng = crate::base::Rng::new(5);
        for percent in [1, 10, 30, 60] {
            let mut trust = Trust::new(Wanted::Auto);
            for _ in 0..400 {
                for carriage in [
                    Carriage::Within,
                    Carriage::Within,
                    Carriage::EvenTail,
                    Carriage::Alone,
                ] {
                    trust.on_fate(carriage, rng.next_u64() % 100 < percent);
                }
            }
            assert_eq!(trust.shape(), Shape::On, "{percent} %");
        }
    }

    #[test]
    fn a_buffer_too_small_for_a_run_is_no_fault_of_segmentation() {
        let mut trust = Trust::new(Wanted::Auto);
        runs(&mut trust, 200, 40, |back, _| back < 20);
        assert_eq!(trust.shape(), Shape::On);
    }

    #[test]
    fn without_anything_to_compare_with_nothing_is_judged() {
        let mut trust = Trust::new(Wanted::Auto);
        for _ in 0..200 {
            trust.on_fate(Carriage::EvenTail, true);
        }
        assert_eq!(trust.shape(), Shape::On);
        for _ in 0..=ALONE_MIN {
            trust.on_fate(Carriage::Alone, false);
        }
        trust.on_fate(Carriage::EvenTail, true);
        assert_eq!(trust.shape(), Shape::Uneven);
    }

    #[test]
    fn what_the_configuration_says_stays() {
        for shape in [Shape::On, Shape::Uneven, Shape::Off] {
            let mut trust = Trust::new(Wanted::Exactly(shape));
            runs(&mut trust, 200, 10, |_, _| true);
            assert_eq!(trust.shape(), shape);
        }
    }
}
