//! Counters of one datapath. Written by its thread only; read between turns.

/// What happened since the datapath was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of `turn`.
    pub turns: u64,
    /// Calls of io_uring_enter; in the epoll tier all system calls that move data or wait.
    pub submits: u64,
    /// Operations handed over by those calls.
    pub sqes: u64,
    /// Completions dispatched; in the epoll tier events.
    pub cqes: u64,
    /// Writes among them.
    pub writes_done: u64,
    /// Calls that were allowed to wait.
    pub waits: u64,
    /// Most completions in one turn.
    pub batch_max: u64,
    /// Writes to sockets: runs and single datagrams.
    pub sends: u64,
    /// Writes that carried more than one datagram.
    pub gso_sends: u64,
    /// Bytes written to sockets.
    pub send_bytes: u64,
    /// Runs sent without a copy, as far as we are concerned.
    pub zero_copy_sends: u64,
    /// Those of them that the kernel has copied all the same.
    pub zero_copy_copied: u64,
    /// Sockets that went back to ordinary writes because nothing was spared.
    pub zero_copy_ended: u64,
    /// Writes to sockets that the kernel refused.
    pub send_errors: u64,
    /// Reads from sockets that gave something; one read may hold many datagrams.
    pub receives: u64,
    /// Bytes read from sockets.
    pub receive_bytes: u64,
    /// Reads that ended with an error, ICMP errors of connected sockets included.
    pub receive_errors: u64,
    /// Frames read from the TUN.
    pub tun_reads: u64,
    /// Bytes of them.
    pub tun_read_bytes: u64,
    /// Frames written to the TUN.
    pub tun_writes: u64,
    /// Frames that the TUN refused.
    pub tun_errors: u64,
    /// Times a read was armed again.
    pub rearms: u64,
    /// Times the kernel ran out of provided buffers.
    pub no_buffers: u64,
    /// Operations that used registered buffers.
    pub fixed_ops: u64,
    /// Sockets that lost segmentation offload because the kernel refused a segmented write.
    pub demotions: u64,
    /// Sends for a socket or TUN that does not exist.
    pub unknown_keys: u64,
}

impl Stats {
    /// Reads that gave something, of both directions.
    pub const fn reads(&self) -> u64 {
        self.tun_reads + self.receives
    }

    /// Bytes that they gave.
    pub const fn read_bytes(&self) -> u64 {
        self.tun_read_bytes + self.receive_bytes
    }
}
