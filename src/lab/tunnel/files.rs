//! The tunnel's files: keys that only their owner reads, and configurations.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{
    INNER_SERVER_V4, INNER_SERVER_V6, START_PORT, TUN_NAME, TunnelSpec, client_name,
    inner_client_v4, inner_client_v6,
};
use crate::crypto::keys::{PrivateKey, PublicKey};
use crate::lab::topology::{SERVER_V4, SERVER_V6};
use crate::lab::{LabError, Topology, Wan};

/// What the files are about.
pub(super) struct Files<'a> {
    pub(super) wans: &'a [Wan],
    pub(super) directory: &'a Path,
    pub(super) spec: &'a TunnelSpec,
}

type Inner = (Ipv4Addr, Ipv6Addr);

impl Files<'_> {
    /// Writes everything for one server and `clients` clients.
    pub(super) fn write(&self, clients: usize) -> Result<(), LabError> {
        let server_key = write_key(self.directory, "server")?;
        let other_key = write_key(self.directory, "other")?;
        let known_key = if self.spec.wrong_key {
            other_key
        } else {
            server_key
        };
        let keys = (0..clients).map(|index| write_key(self.directory, &client_name(index)));
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        self.write_text("server.toml", &self.server_config(&keys))?;
        for index in 0..clients {
            let text = self.client_config(index, known_key);
            self.write_text(&format!("{}.toml", client_name(index)), &text)?;
        }
        Ok(())
    }

    fn write_text(&self, name: &str, text: &str) -> Result<(), LabError> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(LabError::io(path.display().to_string()))
    }

    fn server_config(&self, keys: &[PublicKey]) -> String {
        let any: IpAddr = if self.spec.outer_v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let inner = (INNER_SERVER_V4, INNER_SERVER_V6);
        let mut text = self.general("server", any, inner, inner_client(0));
        text += &self.common("server", "", 1);
        for (index, key) in keys.iter().enumerate() {
            let (v4, v6) = inner_client(index);
            let name = client_name(index);
            let _ = write!(
                text,
                "[[peers]]\nname = \"{name}\"\npublic_key = \"{key}\"\ntun_ip = \"{v4}\"\n\
                 allowed_ips = [\"{v4}/32\", \"{v6}/128\"]\n"
            );
        }
        text
    }

    fn client_config(&self, index: usize, server: PublicKey) -> String {
        let address: IpAddr = if self.spec.outer_v6 {
            SERVER_V6.into()
        } else {
            SERVER_V4.into()
        };
        let mut text = self.general(
            &client_name(index),
            address,
            inner_client(index),
            (INNER_SERVER_V4, INNER_SERVER_V6),
        );
        text += &self.common(
            &client_name(index),
            &format!("peer_public_key = \"{server}\""),
            0,
        );
        let wans = self
            .wans
            .iter()
            .enumerate()
            .filter(|(_, wan)| wan.client == index);
        let wans: Vec<_> = wans
            .map(|(at, wan)| (self.source(at + 1).to_string(), &wan.name))
            .collect();
        let sources: Vec<_> = wans
            .iter()
            .map(|(source, _)| format!("\"{source}\""))
            .collect();
        let _ = writeln!(text, "source_ips = [{}]", sources.join(", "));
        for (source, name) in wans {
            let _ = write!(
                text,
                "[[links.wan]]\nname = \"{name}\"\nsource_ip = \"{source}\"\n"
            );
        }
        text
    }

    fn source(&self, number: usize) -> IpAddr {
        if self.spec.outer_v6 {
            Topology::client_v6(number).into()
        } else {
            Topology::client_v4(number).into()
        }
    }

    fn general(&self, name: &str, server: IpAddr, local: Inner, remote: Inner) -> String {
        let directory = self.directory.display();
        format!(
            "[general]\nserver_ip = \"{server}\"\ntun_name = \"{TUN_NAME}\"\n\
             tun_local_ip = \"{}\"\ntun_remote_ip = \"{}\"\ntun_netmask = \"255.255.255.0\"\n\
             tun_local_ip6 = \"{}\"\ntun_remote_ip6 = \"{}\"\ntun_mtu = {}\n\
             state_folder = \"{directory}/{name}.state\"\n",
            local.0, remote.0, local.1, remote.1, self.spec.tun_mtu
        )
    }

    /// The sections that both sides write alike; `[links]` stands last, open for more lines.
    fn common(&self, name: &str, peer: &str, side: usize) -> String {
        let directory = self.directory.display();
        let TunnelSpec {
            links_per_wan,
            performance,
            security,
            log_level,
            ..
        } = self.spec;
        let threads = self.spec.threads.map(|threads| threads[side]);
        let threads = threads.map(|count| format!("threads = {count}\n"));
        let threads = threads.unwrap_or_default();
        let ports = usize::from(*links_per_wan) * self.wans.len();
        format!(
            "[performance]\n{threads}{performance}\n\
             [status]\ncontrol_socket = \"{directory}/{name}.sock\"\n\
             [logging]\nlevel = \"{log_level}\"\n\
             [security]\nprivate_key_file = \"{directory}/{name}.key\"\n{peer}\n{security}\n\
             [links]\nstart_port = {START_PORT}\nports = {ports}\nlinks_per_wan = {links_per_wan}\n"
        )
    }
}

fn inner_client(index: usize) -> Inner {
    (inner_client_v4(index), inner_client_v6(index))
}

/// Makes a key and writes it to the file `NAME.key`, which nobody else may read.
///
/// # Errors
/// No random numbers, or the file cannot be written.
pub fn write_key(directory: &Path, name: &str) -> Result<PublicKey, LabError> {
    let key = PrivateKey::generate().map_err(|error| LabError::Program(format!("key: {error}")))?;
    let path = directory.join(format!("{name}.key"));
    let file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    let written = file.and_then(|mut file| file.write_all(key.to_base64().as_bytes()));
    written.map_err(LabError::io(path.display().to_string()))?;
    Ok(key.public())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    #[test]
    fn both_sides_accept_what_is_written_for_them() {
        for outer_v6 in [false, true] {
            let name = format!("chainlightning-files-{}-{outer_v6}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            let wans = [
                Wan::new("fiber", ""),
                Wan::new("dsl", ""),
                Wan::new("lte", "").of_client(1),
            ];
            let spec = TunnelSpec {
                outer_v6,
                links_per_wan: 2,
                ..TunnelSpec::default()
            };
            Files {
                wans: &wans,
                directory: &directory,
                spec: &spec,
            }
            .write(2)
            .unwrap();
            let load = |file: &str, role| {
                let loaded = Config::load(&directory.join(file), role);
                loaded
                    .unwrap_or_else(|errors| panic!("{file}: {errors}"))
                    .config
            };
            load("server.toml", Role::Server);
            load("client.toml", Role::Client);
            load("client2.toml", Role::Client);
            fs::remove_dir_all(&directory).unwrap();
        }
    }
}
