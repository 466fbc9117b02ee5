//! Learns from the operating system that some process has written to the file.

#[cfg(not(target_os = "linux"))]
pub(super) use self::elsewhere::Written;
#[cfg(target_os = "linux")]
pub(super) use self::linux::Written;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CString;
    use std::io::{self, PipeReader, PipeWriter};
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::Path;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use rustix::io::Errno;
    use tokio::sync::Notify;

    /// Notifies of writes to the write-ahead log, which every commit appends to.
    pub(in super::super) struct Written {
        log: CString,
        shared: Arc<Shared>,
        /// Ends the thread when it is dropped.
        _alive: PipeWriter,
    }

    /// How often the file is looked at while the system refuses to watch it.
    const UNARMED: Duration = Duration::from_millis(10);

    struct Shared {
        inotify: OwnedFd,
        written: Notify,
    }

    impl Written {
        /// Prepares to watch the file at this path. `None` if the system refuses; then waiters poll.
        pub(in super::super) fn new(path: &str) -> Option<Self> {
            let begun = Self::begin(Path::new(path));
            begun
                .inspect_err(|error| {
                    tracing::warn!(target: "dlock", %error, path, "cannot watch a sqlite file for changes, so waiters poll it; if there are too many inotify instances, raise fs.inotify.max_user_instances");
                })
                .ok()
        }

        fn begin(file: &Path) -> io::Result<Self> {
            // SQLite puts the log beside the file itself, not beside a link to it.
            let mut log = file.canonicalize()?.into_os_string().into_vec();
            log.extend(b"-wal");
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let shared = Arc::new(Shared { inotify, written: Notify::new() });
            let (ended, alive) = io::pipe()?;
            // On a thread rather than in a task, because the waiters of one file may belong to several runtimes.
            let listening = Arc::clone(&shared);
            thread::Builder::new()
                .name("dlock-sqlite".to_owned())
                .spawn(move || listening.listen(&ended))?;
            Ok(Self { log: CString::new(log)?, shared, _alive: alive })
        }

        /// Resolves at the next write. A write after this call is not missed, even before the first poll.
        pub(in super::super) fn next(&self) -> impl Future<Output = ()> {
            let written = self.shared.written.notified();
            // For one event only, because a process without waiters need not know of every write.
            let flags = WatchFlags::MODIFY | WatchFlags::ONESHOT;
            let armed = inotify::add_watch(&self.shared.inotify, &self.log, flags);
            async move {
                match armed {
                    Ok(_) => written.await,
                    // The system watches too many files, for example.
                    Err(_) => tokio::time::sleep(UNARMED).await,
                }
            }
        }
    }

    impl Shared {
        fn listen(&self, ended: &PipeReader) {
            let mut buffer = [MaybeUninit::uninit(); 512];
            let mut events = Reader::new(&self.inotify, &mut buffer);
            loop {
                let mut sources =
                    [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
                match poll(&mut sources, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
                if !sources[1].revents().is_empty() {
                    return;
                }
                let mut was_written = false;
                while let Ok(event) = events.next() {
                    // A one-shot watch says that it is over, too.
                    was_written |= !event.events().contains(ReadFlags::IGNORED);
                }
                if was_written {
                    self.written.notify_waiters();
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::time::Instant;

        use super::*;

        #[test]
        fn its_thread_ends_with_it() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("locks.db");
            std::fs::write(&file, "").unwrap();
            let written = Written::begin(&file).unwrap();
            let of_thread = Arc::downgrade(&written.shared);
            drop(written);
            let began = Instant::now();
            while of_thread.strong_count() > 0 {
                assert!(began.elapsed() < Duration::from_secs(20), "the thread still runs");
                thread::yield_now();
            }
        }
    }
}

/// On other systems notifications may be merged, late or missing.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    pub(in super::super) struct Written;

    impl Written {
        pub(in super::super) fn new(_: &str) -> Option<Self> {
            None
        }

        pub(in super::super) fn next(&self) -> impl Future<Output = ()> {
            std::future::pending()
        }
    }
}
