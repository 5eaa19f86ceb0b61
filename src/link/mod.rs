//! Floor 2: what we believe about one link (delay, loss, life) and about one WAN (capacity, pace).
//!
//! Never does: I/O, clocks, keys, choosing a link for a packet. The session feeds it and asks it.
//!
//! ```text
//!  our side                                          the peer
//!  Pacer ──► when ──► datagram ══════ link ═════════► Receiver
//!    ▲                   │ on_transmit                   │ on_datagram
//!    │ pacing_rate       ▼                               ▼
//!  RateControl ◄── Sender ◄═════ Report (any link) ═══ build_report
//!      Delivery        │ Acked / Lost, state, delay, loss
//! ```
//!
//! [`Sender`] and [`Receiver`] exist once per link, [`RateControl`] and [`Pacer`] once per WAN: capacity belongs
//! to the WAN, delay and loss to the link.
#![forbid(unsafe_code)]

pub mod budget;
pub mod gso;
pub mod history;
pub mod loss;
pub mod minimum;
pub mod owd;
pub mod pacer;
pub mod pmtu;
pub mod rate_control;
pub mod receiver;
pub mod report;
pub mod rtt;
pub mod sender;
mod sent;
pub mod state;

pub use history::{History, Percentiles};
pub use loss::LossPicture;
pub use owd::{Delay, base_difference};
pub use pacer::Pacer;
pub use rate_control::{Delivery, Phase, RateConfig, RateControl};
pub use receiver::{Receiver, ReceiverConfig, low_micros};
pub use report::Report;
pub use sender::{Condition, Outcome, Sender, SenderConfig, SenderCounters};
pub use state::{Cause, State};
