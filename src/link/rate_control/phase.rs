//! Names of what the rate control is doing.

/// What the rate control is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Doubles until the delay grows.
    Startup,
    /// Sends less until the queue is gone.
    Drain,
    /// Sends just below capacity.
    Cruise,
    /// Tries whether more passes.
    Probe,
    /// Believes nothing while the links are suspect.
    Frozen,
}

impl Phase {
    /// The phase's name in status, metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Drain => "drain",
            Self::Cruise => "cruise",
            Self::Probe => "probe",
            Self::Frozen => "frozen",
        }
    }
}
