//! How many workers the data path has when the configuration leaves it open.

use super::values::{Config, Role, Threads};
use crate::base::Rate;

/// More do not pay off by themselves: they share the TUN device and the memory's bandwidth.
const WORKERS_AUTO_MAX: u8 = 8;
/// What one worker of a client is trusted with: half of what one carries on a small machine.
const RATE_OF_A_WORKER: Rate = Rate::from_mbps(2_000);

impl Config {
    /// Number of workers on a machine with so many processors.
    ///
    /// A server takes half of the processors; the kernel needs the others. Clients with one session cost it nothing
    /// by that, and each session has one worker anyway. A client takes more than one only for WANs whose configured
    /// rates need them: every worker has its own links, and every link its own heartbeats, which a metered WAN counts.
    pub fn worker_count(&self, processors: usize) -> u8 {
        let half = u8::try_from(processors / 2).unwrap_or(u8::MAX);
        let most = half.clamp(1, WORKERS_AUTO_MAX);
        match (self.performance.threads, self.role) {
            (Threads::Exactly(count), _) => count,
            (Threads::Auto, Role::Server) => most,
            (Threads::Auto, Role::Client) => {
                let one_way = |pick: fn(&super::Wan) -> Option<Rate>| {
                    let rates = self.links.wans.iter().filter_map(pick);
                    rates.fold(Rate::ZERO, Rate::saturating_add).bits_per_s()
                };
                let rate = one_way(|wan| wan.up).max(one_way(|wan| wan.down));
                let wanted = rate.div_ceil(RATE_OF_A_WORKER.bits_per_s());
                u8::try_from(wanted).unwrap_or(u8::MAX).clamp(1, most)
            }
        }
    }
}
