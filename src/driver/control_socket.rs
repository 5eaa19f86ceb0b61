//! The control socket: who may connect, for how long, and how a connection ends.
//!
//! Each connection is a task of its own, so that a client that says nothing keeps nobody waiting. A connection never
//! ends with a read or write still in the ring: its socket is shut down first, which completes them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixListener;

use super::RunError;
use crate::status;

/// Connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 32;
/// A connection that is not through with it after this is closed.
const CONVERSATION_MAX: Duration = Duration::from_secs(5);
/// Connections get this long to notice that they are shut down.
const CLOSING_MAX: Duration = Duration::from_millis(100);

/// The listening socket; its file is removed when it is dropped.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Tells our file from another daemon's.
    inode: u64,
}

impl ControlSocket {
    /// Listens at `path`, in a folder that is made if need be.
    pub fn listen(path: &Path) -> Result<Self, RunError> {
        Self::try_listen(path).map_err(|source| RunError::ControlSocket {
            path: path.to_owned(),
            source,
        })
    }

    fn try_listen(path: &Path) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o750).create(folder)?;
        }
        // A socket nobody listens behind is left over from a daemon that was killed. Anything else is not ours.
        let is_socket = |meta: std::fs::Metadata| meta.file_type().is_socket();
        if std::fs::symlink_metadata(path).is_ok_and(is_socket)
            && UnixStream::connect(path).is_err()
        {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            listener,
            inode: std::fs::metadata(path)?.ino(),
            path: path.to_owned(),
        })
    }

    /// The next connection. Errors concern single connections and are left to the next call, after a pause: out of
    /// descriptors would otherwise be a busy loop.
    pub async fn accept(&self) -> tokio::net::UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::debug!(%error, "control connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The connections that are open.
#[derive(Clone, Default)]
pub struct Connections {
    open: Rc<RefCell<BTreeMap<u64, UnixStream>>>,
    next: Rc<Cell<u64>>,
}

impl Connections {
    /// Serves a connection in a task of its own: one request line in, one line of `reply` out.
    pub fn serve<R>(
        &self,
        stream: tokio::net::UnixStream,
        on_ring: bool,
        reply: impl FnOnce(String) -> R + 'static,
    ) where
        R: Future<Output = String>,
    {
        if self.open.borrow().len() >= CONNECTIONS_MAX {
            return;
        }
        let split = || -> std::io::Result<(UnixStream, UnixStream)> {
            let stream = stream.into_std()?;
            Ok((stream.try_clone()?, stream))
        };
        let Ok((handle, stream)) = split() else {
            return;
        };
        let id = self.next.get();
        self.next.set(id + 1);
        self.open.borrow_mut().insert(id, handle);
        let open = Rc::clone(&self.open);
        tokio::task::spawn_local(async move {
            let mut talk = std::pin::pin!(converse(stream, on_ring, reply));
            if tokio::time::timeout(CONVERSATION_MAX, &mut talk)
                .await
                .is_err()
            {
                shut_down(&open, id);
                let _ = talk.await;
            }
            open.borrow_mut().remove(&id);
        });
    }

    /// Ends all conversations.
    pub async fn close(&self) {
        let ids: Vec<u64> = self.open.borrow().keys().copied().collect();
        for id in ids {
            shut_down(&self.open, id);
        }
        let gone = async {
            while !self.open.borrow().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(CLOSING_MAX, gone).await;
    }
}

fn shut_down(open: &RefCell<BTreeMap<u64, UnixStream>>, id: u64) {
    if let Some(stream) = open.borrow().get(&id) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// One request line in, one reply line out.
async fn converse<R>(
    stream: UnixStream,
    on_ring: bool,
    reply: impl FnOnce(String) -> R,
) -> std::io::Result<()>
where
    R: Future<Output = String>,
{
    let mut line = Vec::with_capacity(status::REQUEST_BYTES_MAX);
    let is_whole = |line: &[u8]| line.contains(&b'\n') || line.len() >= status::REQUEST_BYTES_MAX;
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    if on_ring {
        let stream = tokio_uring::net::UnixStream::from_std(stream);
        while !is_whole(&line) {
            let (count, buffer) = stream.read(vec![0; status::REQUEST_BYTES_MAX]).await;
            match count? {
                0 => break,
                count => line.extend_from_slice(&buffer[..count]),
            }
        }
        let answer = reply(text(&line)).await;
        stream.write_all(answer.into_bytes()).await.0
    } else {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        while !is_whole(&line) {
            if stream.read_buf(&mut line).await? == 0 {
                break;
            }
        }
        let answer = reply(text(&line)).await;
        stream.write_all(answer.as_bytes()).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn on_both_runtimes(test: impl AsyncFn(bool)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test(false));
        if let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) {
            runtime.block_on(test(true));
        }
    }

    fn folder() -> PathBuf {
        let name = format!(
            "cl-control-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        std::env::temp_dir().join(name)
    }

    #[test]
    fn a_silent_client_keeps_nobody_waiting_and_is_gone_at_the_end() {
        on_both_runtimes(async |on_ring| {
            let path = folder().join("control.sock");
            let socket = ControlSocket::listen(&path).unwrap();
            let connections = Connections::default();
            let serve = async || {
                let stream = socket.accept().await;
                connections.serve(stream, on_ring, async |line| format!("got {line}"));
            };
            let mut silent = UnixStream::connect(&path).unwrap();
            serve().await;
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"status\n").unwrap();
            client.set_nonblocking(true).unwrap();
            serve().await;
            let mut answer = String::new();
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if client.read_to_string(&mut answer).is_ok() {
                    break;
                }
            }
            assert_eq!(answer, "got status\n");
            assert_eq!(connections.open.borrow().len(), 1);
            connections.close().await;
            assert_eq!(connections.open.borrow().len(), 0);
            assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
            drop(socket);
            assert!(!path.exists());
            std::fs::remove_dir(folder()).unwrap();
        });
    }

    #[test]
    fn only_a_stale_socket_is_removed() {
        on_both_runtimes(async |_| {
            let path = folder().join("stale");
            drop(std::fs::create_dir_all(folder()));
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            drop(ControlSocket::listen(&path).unwrap());
            std::fs::write(&path, "precious").unwrap();
            assert!(ControlSocket::listen(&path).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), b"precious");
            std::fs::remove_dir_all(folder()).unwrap();
        });
    }
}
