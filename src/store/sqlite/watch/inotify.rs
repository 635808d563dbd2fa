//! The kernel's reports of writes to a file; only on Linux.

#[cfg(target_os = "linux")]
pub(crate) use linux::{Bell, Notice};
#[cfg(not(target_os = "linux"))]
pub(crate) use nothing::{Bell, Notice};

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

    /// Watches one file by its inode.
    #[derive(Debug)]
    pub(crate) struct Notice {
        path: PathBuf,
        inotify: OwnedFd,
        bell: Bell,
        watch: Option<i32>,
    }

    /// Ends a wait.
    #[derive(Debug, Clone)]
    pub(crate) struct Bell(Arc<OwnedFd>);

    impl Bell {
        pub(crate) fn ring(&self) {
            // It fails only if it rings already.
            let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
        }
    }

    impl Notice {
        pub(crate) fn new(path: &Path) -> io::Result<Self> {
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let mut notice = Self {
                path: path.to_owned(),
                inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
                bell: Bell(Arc::new(bell)),
                watch: None,
            };
            // Tried once: the user's share of watches may be used up.
            notice.add()?;
            notice.disarm();
            Ok(notice)
        }

        pub(crate) fn bell(&self) -> Bell {
            self.bell.clone()
        }

        fn add(&mut self) -> io::Result<()> {
            let flags = WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            self.watch = Some(inotify::add_watch(&self.inotify, &self.path, flags)?);
            Ok(())
        }

        pub(crate) fn is_armed(&self) -> bool {
            self.watch.is_some()
        }

        /// Begins to watch; `false` if the file is not there.
        pub(crate) fn arm(&mut self) -> bool {
            self.add().is_ok()
        }

        pub(crate) fn disarm(&mut self) {
            if let Some(watch) = self.watch.take() {
                // The watch is gone already if the file is.
                let _ = inotify::remove_watch(&self.inotify, watch);
                self.drain();
            }
        }

        /// Sleeps until something is written or the bell rings, at most for `span`; `true` if something was written.
        pub(crate) fn wait(&mut self, span: Option<Duration>) -> bool {
            let span = span.and_then(|span| Timespec::try_from(span).ok());
            let mut sources = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&*self.bell.0, PollFlags::IN),
            ];
            // A signal ends the wait early: one needless look costs little.
            let _ = poll(&mut sources, span.as_ref());
            self.drain()
        }

        /// Reads the kernel's reports, and returns whether there were any.
        fn drain(&mut self) -> bool {
            let mut buffer = [MaybeUninit::uninit(); 1024];
            let mut events = Reader::new(&self.inotify, &mut buffer);
            let mut found = false;
            while let Ok(event) = events.next() {
                found = true;
                if event.events().contains(ReadFlags::IGNORED) && self.watch == Some(event.wd()) {
                    // The file is gone, and the watch with it.
                    self.watch = None;
                }
            }
            found
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nothing {
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    #[derive(Debug)]
    pub(crate) enum Notice {}

    #[derive(Debug)]
    pub(crate) enum Bell {}

    impl Bell {
        pub(crate) fn ring(&self) {
            match *self {}
        }
    }

    impl Notice {
        pub(crate) fn new(_path: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn bell(&self) -> Bell {
            match *self {}
        }

        pub(crate) fn is_armed(&self) -> bool {
            match *self {}
        }

        pub(crate) fn arm(&mut self) -> bool {
            match *self {}
        }

        pub(crate) fn disarm(&mut self) {
            match *self {}
        }

        pub(crate) fn wait(&mut self, _span: Option<Duration>) -> bool {
            match *self {}
        }
    }
}
