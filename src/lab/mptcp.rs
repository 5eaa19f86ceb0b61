//! Multipath TCP over all WANs of a lab: what an operator would tell the kernel on both hosts.
//!
//! ```text
//!  client: an endpoint for each WAN (`ip mptcp endpoint add ADDRESS dev DEVICE subflow`)
//!  both:   as many further subflows as the kernel allows (`ip mptcp limits set subflow 8`)
//! ```

use std::fs;

use super::{LabError, Topology};
use crate::sys::mptcp;
use crate::sys::netdev::{MPTCP_SUBFLOWS_MAX, Mptcp};

/// Sets up multipath TCP between the first client and the server of `lab`. Connections of the client then use all of
/// its WANs, whichever way their payload flows.
///
/// # Errors
/// The kernel has no multipath TCP, or it is switched off and cannot be switched on here.
pub fn prepare(lab: &Topology) -> Result<(), LabError> {
    lab.server().run(switch_on)??;
    lab.client(0).run(|| {
        switch_on()?;
        let mut manager = Mptcp::open()?;
        for (index, wan) in lab.wans().iter().enumerate() {
            if wan.client == 0 {
                let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
                let address = Topology::client_v4(index + 1).into();
                manager.add_subflow_endpoint(number, address, &format!("eth{}", index + 1))?;
            }
        }
        Ok(())
    })?
}

fn switch_on() -> Result<(), LabError> {
    // It is on unless the administrator said otherwise; containers mount /proc/sys read-only.
    let _ = fs::write("/proc/sys/net/mptcp/enabled", "1");
    mptcp::socket().map_err(LabError::io("no multipath TCP in this kernel"))?;
    Ok(Mptcp::open()?.set_limit(MPTCP_SUBFLOWS_MAX)?)
}
