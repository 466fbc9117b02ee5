//! Waits for children without reaping them.

use std::sync::mpsc::{Receiver, Sender};

use super::supervisor::Event;

/// Reports each time that a child has ended or was stopped, and goes on when that has been seen to.
#[cfg(target_os = "linux")]
pub fn watch(events: &Sender<Event>, next: &Receiver<()>) {
    use nix::errno::Errno;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    loop {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, flags) {
            Ok(_) => {
                if events.send(Event::Child).is_err() || next.recv().is_err() {
                    return;
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => {
                let _ = events.send(Event::NoChild);
                return;
            }
        }
    }
}

/// The same where one cannot wait without reaping.
#[cfg(not(target_os = "linux"))]
pub fn watch(events: &Sender<Event>, next: &Receiver<()>) {
    while events.send(Event::Child).is_ok() && next.recv().is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
