//! How shards have the outside thread look at its end of the mesh.
//!
//! Invariants: whoever rings never waits: it is an exchange of a flag, and a write of one byte to a socket that takes it at once, only where
//! nobody has rung since the last look. No ring is lost: the flag is taken back before the look, so what was handed over before a ring that
//! found the flag set is seen by that look.

use std::{
    io::{self, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What shards ring. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    is_rung: AtomicBool,
    writer: UnixStream,
    reader: UnixStream,
}

/// What the outside thread listens to.
#[derive(Debug)]
pub(super) struct Ears {
    inner: Arc<Inner>,
    stream: tokio::net::UnixStream,
}

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok(Self { inner: Arc::new(Inner { is_rung: AtomicBool::new(false), writer, reader }) })
    }

    /// Has the outside thread look, and see everything that was handed over before this call.
    pub fn ring(&self) {
        if !self.inner.is_rung.swap(true, Ordering::SeqCst) {
            // There is room: at most one byte is on its way.
            let _ = (&self.inner.writer).write(&[1]);
        }
    }

    /// For one listener, in a runtime.
    pub(super) fn ears(&self) -> io::Result<Ears> {
        let stream = tokio::net::UnixStream::from_std(self.inner.reader.try_clone()?)?;
        Ok(Ears { inner: Arc::clone(&self.inner), stream })
    }
}

impl Ears {
    /// Until the bell was rung. To be followed by a look. May be dropped at any time.
    pub(super) async fn hear(&mut self) -> io::Result<()> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut [0; 1]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.inner.is_rung.store(false, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::SeqCst},
        thread,
        time::Duration,
    };

    use tokio::{runtime::Builder, time::timeout};

    use super::*;

    #[test]
    fn no_ring_is_lost() {
        const RINGS: u64 = 20_000;
        let (bell, handed_over) = (Bell::new().unwrap(), AtomicU64::new(0));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..RINGS {
                        handed_over.fetch_add(1, SeqCst);
                        bell.ring();
                    }
                });
            }
            runtime.block_on(async {
                let mut ears = bell.ears().unwrap();
                while handed_over.load(SeqCst) < 2 * RINGS {
                    timeout(Duration::from_secs(30), ears.hear()).await.expect("a ring was lost").unwrap();
                }
            });
        });
    }
}
