//! The vCPU threads: running, standing, resetting, saved and restored, and how the control thread orders
//! them about.
//!
//! One thread per vCPU; it owns its [`crate::kvm::Vcpu`], takes orders from its slot (`slot.rs`), and
//! does nothing but `KVM_RUN` and register-sized bus accesses. [`VcpuSet`] is the control thread's
//! end. No vCPU ioctl is made from another thread.

mod end;
mod exit;
mod kick;
mod slot;
mod thread;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::end::{EndSignal, GuestEnd};
pub use self::exit::Platform;
use self::slot::{Cargo, Order, Slot};
use crate::kvm::{ImmediateExit, KvmError, Vcpu};
use crate::state::VcpuStateV1;

/// How long a vCPU may take to stand. An exit is handled in microseconds; only a host that does not
/// schedule the thread takes longer.
const STAND_DEADLINE: Duration = Duration::from_secs(4);

/// Why the vCPUs could not be started or brought to rest.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// A thread could not be made.
    #[error("cannot start the thread of vCPU {index}: {source}")]
    Thread {
        /// The vCPU.
        index: u32,
        /// What the host said.
        source: std::io::Error,
    },
    /// The kick's handler could not be installed.
    #[error("cannot install the handler of the kick signal: {0}")]
    Handler(#[source] std::io::Error),
    /// A vCPU does not stand.
    #[error("vCPU {0} did not stop within {STAND_DEADLINE:?}")]
    Unresponsive(u32),
    /// KVM does not give or take its state.
    #[error("the state of vCPU {index}: {source}")]
    State {
        /// The vCPU.
        index: u32,
        /// What KVM said.
        source: KvmError,
    },
}

#[derive(Debug)]
struct Handle {
    slot: Arc<Slot>,
    flag: ImmediateExit,
    thread: Option<JoinHandle<Vcpu>>,
}

/// All vCPUs of a machine.
#[derive(Debug)]
pub struct VcpuSet {
    vcpus: Vec<Handle>,
}

impl VcpuSet {
    /// Starts a standing thread for each vCPU. The first has its entry registers set already.
    ///
    /// # Errors
    /// [`VcpuError`]; threads that were started end.
    pub fn start(vcpus: Vec<Vcpu>, platform: &Arc<Platform>) -> Result<Self, VcpuError> {
        kick::install_handler().map_err(VcpuError::Handler)?;
        let mut set = Self {
            vcpus: Vec::with_capacity(vcpus.len()),
        };
        for vcpu in vcpus {
            let index = vcpu.index();
            let slot = Arc::new(Slot::new());
            let flag = vcpu.immediate_exit();
            let body = thread::body(vcpu, Arc::clone(&slot), Arc::clone(platform));
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .stack_size(thread::STACK_BYTES)
                .spawn(body)
                .map_err(|source| VcpuError::Thread { index, source });
            match thread {
                Ok(thread) => set.vcpus.push(Handle {
                    slot,
                    flag,
                    thread: Some(thread),
                }),
                Err(error) => {
                    set.quit();
                    return Err(error);
                }
            }
        }
        Ok(set)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.vcpus.len()).unwrap_or(u32::MAX)
    }

    /// Lets every vCPU run.
    pub fn run(&self) {
        self.order(Order::Run);
    }

    /// Makes every vCPU stand between two instructions, and waits for the last one.
    ///
    /// # Errors
    /// [`VcpuError::Unresponsive`]; the others stand.
    pub fn park(&self) -> Result<(), VcpuError> {
        self.order(Order::Park);
        self.wait_standing()
    }

    /// Puts every vCPU, standing, back to its power-on state; the first one to `entry`.
    ///
    /// # Errors
    /// As for [`Self::park`].
    pub fn reset(&self) -> Result<(), VcpuError> {
        self.order(Order::Reset);
        self.wait_standing()
    }

    /// The state of every vCPU, all of which stand, by index.
    ///
    /// # Errors
    /// As for [`Self::park`], and [`VcpuError::State`].
    pub fn save(&self) -> Result<Vec<VcpuStateV1>, VcpuError> {
        self.order(Order::Save);
        self.wait_standing()?;
        (0..)
            .zip(&self.vcpus)
            .map(|(index, vcpu)| match vcpu.slot.take() {
                Cargo::State(state) => Ok(*state),
                Cargo::Refused(source) => Err(VcpuError::State { index, source }),
                Cargo::Nothing => Err(VcpuError::Unresponsive(index)),
            })
            .collect()
    }

    /// Puts the states of vCPUs back, all of which stand: one for each, by index.
    ///
    /// # Errors
    /// As for [`Self::save`]; none must run then.
    pub fn restore(&self, states: Vec<VcpuStateV1>) -> Result<(), VcpuError> {
        for (vcpu, state) in self.vcpus.iter().zip(states) {
            vcpu.slot.put(Cargo::State(Box::new(state)));
        }
        self.order(Order::Restore);
        self.wait_standing()?;
        for (index, vcpu) in (0..).zip(&self.vcpus) {
            if let Cargo::Refused(source) = vcpu.slot.take() {
                return Err(VcpuError::State { index, source });
            }
        }
        Ok(())
    }

    /// Tells every thread to end.
    pub fn order_quit(&self) {
        self.order(Order::Quit);
    }

    /// As [`Self::order_quit`], and waits for them.
    pub fn quit(&mut self) {
        self.order_quit();
        for vcpu in &mut self.vcpus {
            if let Some(thread) = vcpu.thread.take() {
                // A thread that panicked has ended the process already.
                let _ = thread.join();
            }
        }
    }

    fn order(&self, order: Order) {
        for vcpu in &self.vcpus {
            vcpu.slot.give(order);
            // The other orders are for threads that stand, which wake by themselves.
            let may_run = matches!(order, Order::Park | Order::Quit);
            if let (true, Some(thread)) = (may_run, &vcpu.thread) {
                kick::kick(thread, &vcpu.flag);
            }
        }
    }

    fn wait_standing(&self) -> Result<(), VcpuError> {
        let deadline = Instant::now() + STAND_DEADLINE;
        for (index, vcpu) in (0..).zip(&self.vcpus) {
            if !vcpu.slot.wait_standing(deadline) {
                return Err(VcpuError::Unresponsive(index));
            }
        }
        Ok(())
    }
}
