//! What the tunnel is measured against, point to point over the first cable, with the inner addresses and the inner MTU
//! of ours: other tunnels as their own packages have them, OpenVPN and WireGuard in user space, and the relay
//! ([`crate::lab::relay`]), which is part of this program.
//!
//! None of the others is needed: where a program is missing, its row says so and how to get it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::bench::contender::NoStage;
use crate::driver::TUN_QUEUE_FRAMES;
use crate::lab::tunnel::{INNER_SERVER_V4, inner_client_v4, write_key};
use crate::lab::{LabError, Launch, Netns, Process, Topology};
use crate::sys::Netdev;
use crate::sys::netdev::Prefix;

/// Where administrators' programs are, although a user's PATH does not name it.
const FURTHER_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
const OPENVPN_PORT: &str = "1194";
const WIREGUARD_PORT: &str = "51820";
const RELAY_PORT: u16 = 5555;
const RELAY_DEVICE: &str = "tun-relay";
/// WireGuard has a socket for each device, by its name, in one folder for all namespaces: every device of a benchmark
/// has another number, so that none meets the socket of one that was killed.
static WIREGUARD_DEVICES: AtomicU32 = AtomicU32::new(0);

/// A running pair of programs: client, then server.
pub(super) type Pair = (Process, Process);

/// The file of a program, or what to do about its absence.
fn program(name: &str, package: &str) -> Result<PathBuf, NoStage> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FURTHER_FOLDERS.map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file()).ok_or_else(|| {
        NoStage::Missing(format!(
            "no program {name} (Debian: apt-get install {package})"
        ))
    })
}

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Runs a program to its end and gives its output.
fn output(command: &mut Command) -> Result<String, LabError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(LabError::io(format!("start {name}")))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(LabError::Program(format!("{name}: {}", errors.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// OpenVPN 2.6 or newer: TLS between two certificates that know each other by their fingerprints.
pub(super) fn openvpn(lab: &Topology, mtu: u16) -> Result<Pair, NoStage> {
    let openvpn = Launch::program(program("openvpn", "openvpn")?);
    let openssl = program("openssl", "openssl")?;
    let directory = lab.directory();
    let client_print = certificate(&openssl, directory, "ovpn-client")?;
    let server_print = certificate(&openssl, directory, "ovpn-server")?;
    let (mtu, gateway) = (mtu.to_string(), Topology::gateway_v4(1).to_string());
    let inner = (inner_client_v4(0).to_string(), INNER_SERVER_V4.to_string());
    let common = |name: &str, print: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        // Data in the kernel would be another contender.
        let mut args = arguments(&["--dev", "tun-ovpn", "--dev-type", "tun", "--disable-dco"]);
        args.extend(arguments(&[
            "--proto",
            "udp",
            "--port",
            OPENVPN_PORT,
            "--tun-mtu",
            &mtu,
        ]));
        args.extend(arguments(&["--data-ciphers", "AES-128-GCM"]));
        args.extend(arguments(&["--cert", &certificate, "--key", &key]));
        args.extend(arguments(&["--peer-fingerprint", print]));
        args
    };
    let mut server = common("ovpn-server", &client_print);
    server.extend(arguments(&["--tls-server", "--dh", "none"]));
    server.extend(arguments(&["--ifconfig", &inner.1, &inner.0]));
    let mut client = common("ovpn-client", &server_print);
    client.extend(arguments(&[
        "--tls-client",
        "--nobind",
        "--remote",
        &gateway,
    ]));
    client.extend(arguments(&["--ifconfig", &inner.0, &inner.1]));
    let start = |name, args: &[OsString], namespace| {
        Process::start(name, &openvpn, args, namespace, directory, false)
    };
    let server = start("openvpn-server", &server, lab.server())?;
    Ok((start("openvpn-client", &client, lab.client(0))?, server))
}

/// Makes a key and a certificate that nobody else signs; gives its fingerprint.
fn certificate(openssl: &Path, directory: &Path, name: &str) -> Result<String, LabError> {
    let (file, key) = (format!("{name}.pem"), format!("{name}.key"));
    let mut make = Command::new(openssl);
    make.current_dir(directory);
    make.args([
        "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2", "-subj",
    ]);
    make.args([&format!("/CN={name}"), "-keyout", &key, "-out", &file]);
    make.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    output(&mut make)?;
    let mut show = Command::new(openssl);
    show.current_dir(directory);
    show.args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &file]);
    let text = output(&mut show)?;
    let (_, print) = text.trim().split_once('=').unwrap_or_default();
    Ok(print.to_owned())
}

/// The userspace program of WireGuard, set up by `wg`.
pub(super) fn wireguard(lab: &Topology, mtu: u16) -> Result<Pair, NoStage> {
    let wireguard = program("wireguard-go", "wireguard-go")?;
    let wg = program("wg", "wireguard-tools")?;
    let directory = lab.directory();
    let number = WIREGUARD_DEVICES.fetch_add(1, Ordering::Relaxed);
    let devices = ["client", "server"].map(|side| format!("wg{number}-{side}"));
    let keys = [
        // Keys of WireGuard have the format of ours.
        write_key(directory, &devices[0])?,
        write_key(directory, &devices[1])?,
    ];
    let start = |device: &str, namespace: &Netns| {
        let launch = Launch::program(&wireguard);
        let args = arguments(&["--foreground", device]);
        Process::start(device, &launch, &args, namespace, directory, false)
    };
    let client = start(&devices[0], lab.client(0))?;
    let server = start(&devices[1], lab.server())?;
    let endpoint = format!("{}:{WIREGUARD_PORT}", Topology::gateway_v4(1));
    let (near, far) = (inner_client_v4(0), INNER_SERVER_V4);
    let prefixes = [format!("{far}/32"), format!("{near}/32")];
    let [near_key, far_key] = keys.map(|key| key.to_string());
    for (process, namespace, own, words) in [
        (
            &client,
            lab.client(0),
            near,
            [
                "peer",
                &far_key,
                "allowed-ips",
                &prefixes[0],
                "endpoint",
                &endpoint,
            ],
        ),
        (
            &server,
            lab.server(),
            far,
            [
                "listen-port",
                WIREGUARD_PORT,
                "peer",
                &near_key,
                "allowed-ips",
                &prefixes[1],
            ],
        ),
    ] {
        let device = process.name();
        let mut set = Command::new(&wg);
        set.current_dir(directory)
            .args(["set", device, "private-key", &format!("{device}.key")])
            .args(words);
        let configured =
            namespace.run(|| configure_wireguard(&mut set, device, mtu, own.into()))?;
        configured.map_err(|error| LabError::Program(format!("{error}\n{}", process.log())))?;
    }
    Ok((client, server))
}

/// Sets up a device as soon as its program has made it.
fn configure_wireguard(
    set: &mut Command,
    device: &str,
    mtu: u16,
    own: IpAddr,
) -> Result<(), LabError> {
    let mut result = Ok(String::new());
    crate::lab::wait_until(super::UP_LIMIT, || {
        result = output(set);
        result.is_ok()
    });
    result?;
    configure_device(&mut Netdev::open()?, device, mtu, own)
}

/// The relay of the lab at both ends, from this very file, its devices set up as ours.
pub(super) fn relay(lab: &Topology, mtu: u16) -> Result<Pair, LabError> {
    let launch = Launch::this_program("__relay")?;
    let ports = [Topology::client_v4(1), Topology::gateway_v4(1)]
        .map(|address| SocketAddr::new(address.into(), RELAY_PORT).to_string());
    let start = |name, near: &str, far: &str, namespace: &Netns, own: IpAddr| {
        let args = arguments(&[RELAY_DEVICE, near, far]);
        let process = Process::start(name, &launch, &args, namespace, lab.directory(), false)?;
        namespace
            .run(|| configure_relay(mtu, own))?
            .map_err(|error| LabError::Program(format!("{error}\n{}", process.log())))?;
        Ok::<_, LabError>(process)
    };
    let [near, far] = &ports;
    let inner = (inner_client_v4(0).into(), INNER_SERVER_V4.into());
    let client = start("relay-client", near, far, lab.client(0), inner.0)?;
    Ok((
        client,
        start("relay-server", far, near, lab.server(), inner.1)?,
    ))
}

/// Sets up a relay's device as soon as its program has made it, with the queue that our tunnel's has.
fn configure_relay(mtu: u16, own: IpAddr) -> Result<(), LabError> {
    let mut netdev = Netdev::open()?;
    crate::lab::wait_until(super::UP_LIMIT, || {
        matches!(netdev.interface(RELAY_DEVICE), Ok(Some(_)))
    });
    netdev.set_queue_length(RELAY_DEVICE, TUN_QUEUE_FRAMES)?;
    configure_device(&mut netdev, RELAY_DEVICE, mtu, own)
}

fn configure_device(
    netdev: &mut Netdev,
    device: &str,
    mtu: u16,
    own: IpAddr,
) -> Result<(), LabError> {
    netdev.set_mtu(device, mtu.into())?;
    let address = Prefix {
        address: own,
        bits: 24,
    };
    netdev.add_address(device, address, None)?;
    Ok(netdev.set_up(device, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let Err(NoStage::Missing(text)) = program("no-such-tunnel", "its-package") else {
            panic!("there is no such program");
        };
        assert_eq!(
            text,
            "no program no-such-tunnel (Debian: apt-get install its-package)"
        );
        assert!(program("sh", "dash").is_ok());
    }

    #[test]
    fn what_a_program_complains_about_is_told() {
        assert_eq!(
            output(Command::new("sh").args(["-c", "echo x"])).unwrap(),
            "x\n"
        );
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh: why");
    }
}
