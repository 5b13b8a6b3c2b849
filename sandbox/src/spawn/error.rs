//! What can go wrong in stage A, named by step, with what mends it.

use std::fmt;
use std::io;

macro_rules! steps {
    ($($name:ident = $text:literal,)*) => {
        /// One step of stage A, in the order in which they are taken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Step {
            $(#[doc = $text] $name,)*
        }

        impl Step {
            /// Every step.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

steps! {
    Prepare = "preparing descriptors and stacks",
    Clone = "creating a process in new user and pid namespaces",
    DenySetgroups = "denying setgroups in the user namespace",
    MapGid = "mapping the group",
    MapUid = "mapping the user",
    BindToParent = "binding the process to its parent's life",
    Session = "leaving the terminal's session",
    CloneHelper = "starting a helper",
    Namespaces = "creating mount, IPC, UTS and cgroup namespaces",
    AwaitMaps = "waiting for the identity to be mapped",
    DropGroups = "dropping supplementary groups",
    SetGid = "taking the group",
    SetUid = "taking the user",
    Capabilities = "reducing capabilities",
    Bounding = "emptying the capability bounding set",
    Securebits = "locking the secure bits",
    Descriptors = "arranging descriptors",
    Limits = "setting resource limits",
    Memory = "having its memory on nodes of the host",
    Signals = "unblocking signals",
    Exec = "executing the program",
}

impl Step {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|step| *step as u32 == number)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Why no process was started. Nothing is left behind: no process, no zombie, no descriptor.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The request itself is refused; nothing was tried.
    #[error("cannot start a jailed process: {0}")]
    Invalid(&'static str),
    /// A step failed.
    #[error("{step} failed: {source}")]
    Step {
        /// Which step.
        step: Step,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process was killed from outside before it could execute the program.
    #[error("the jailed process died before it executed its program")]
    Died,
}

impl SpawnError {
    pub(super) fn step(step: Step, errno: i32) -> Self {
        Self::Step {
            step,
            source: io::Error::from_raw_os_error(errno),
        }
    }

    /// What an administrator can do about it, in one line, where that is known. Looks at the host's
    /// settings as they are now.
    pub fn remedy(&self) -> Option<String> {
        let Self::Step { step, source } = self else {
            return None;
        };
        let errno = source.raw_os_error().unwrap_or(0);
        match (step, errno) {
            (Step::Clone | Step::Namespaces | Step::CloneHelper, libc::ENOSPC) => Some(
                "the limit of namespaces is reached: raise user.max_user_namespaces and its \
                 kin (sysctl -a -r 'user.max_.*_namespaces')"
                    .into(),
            ),
            (Step::Clone, libc::EPERM) => Some(crate::host::user_namespace_remedy().into()),
            (Step::Clone, libc::ENOSYS | libc::EINVAL) => Some(
                "the kernel lacks clone3 or a namespace type: Linux 6.1 or newer is needed".into(),
            ),
            (Step::Namespaces, libc::EPERM | libc::EACCES) => {
                Some(crate::host::user_namespace_remedy().into())
            }
            (Step::MapUid | Step::MapGid | Step::DenySetgroups, libc::ENOENT) => {
                Some("/proc is not mounted, or not that of this pid namespace".into())
            }
            (Step::Limits, libc::EPERM) => {
                Some("a limit is above the caller's own hard limit: raise that (ulimit -H)".into())
            }
            _ => None,
        }
    }
}
