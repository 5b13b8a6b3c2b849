//! The vCPU threads: running, standing, resetting, saved and restored, and how the control thread orders
//! them about.
//!
//! One thread per vCPU that is there; it owns its [`crate::kvm::Vcpu`], takes orders from its slot (`slot.rs`), and
//! does nothing but `KVM_RUN` and register-sized bus accesses. [`VcpuSet`] is the control thread's
//! end. No vCPU ioctl is made from another thread while a vCPU has one.
//!
//! ```text
//!         bring: made                    take: stands, is reset, its thread ends
//!  Empty ─────────────────► Taken ─────────────────────────────────────────────────► Spare
//!                             ◄──────────────────────────────────────────────────────
//!                                       bring: is reset again
//! ```

mod end;
mod exit;
mod kick;
mod slot;
mod thread;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::end::{EndSignal, GuestEnd};
pub use self::exit::Platform;
use self::slot::{Cargo, Order, Slot};
use crate::build::BuildError;
use crate::kvm::{ImmediateExit, KvmError, Vcpu};
use crate::spawner::Spawner;
use crate::state::{Tsc, VcpuStateV1};

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
    #[error("vCPU {0} did not stop in time")]
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
    thread: Option<JoinHandle<Option<Vcpu>>>,
}

impl Handle {
    fn order(&self, order: Order) {
        self.slot.give(order);
        // The other orders are for threads that stand, which wake by themselves.
        let may_run = matches!(order, Order::Park | Order::Quit);
        if let (true, Some(thread)) = (may_run, &self.thread) {
            kick::kick(thread, &self.flag);
        }
    }

    fn wait_standing(&self, index: u32, deadline: Instant) -> Result<(), VcpuError> {
        if self.slot.wait_standing(deadline) {
            Ok(())
        } else {
            Err(VcpuError::Unresponsive(index))
        }
    }
}

/// The place of a vCPU that a machine can have.
#[derive(Debug)]
enum Seat {
    /// It has never been.
    Empty,
    /// It is not there now. KVM cannot take a vCPU away, so it is kept, as after power-on, for when it
    /// comes again.
    Spare(Vcpu),
    /// It is there.
    Taken(Handle),
}

/// All vCPUs of a machine.
#[derive(Debug)]
pub struct VcpuSet {
    /// By index, as many as the machine can have.
    seats: Vec<Seat>,
    platform: Arc<Platform>,
    /// What was last ordered of all: those that come do the same.
    runs: bool,
}

impl VcpuSet {
    /// Starts a standing thread for each of `vcpus` of a machine that can have those to `possible - 1`. The
    /// first has its entry registers set already.
    ///
    /// # Errors
    /// [`VcpuError`]; threads that were started end.
    pub fn start(
        vcpus: Vec<Vcpu>,
        possible: u32,
        platform: &Arc<Platform>,
    ) -> Result<Self, VcpuError> {
        kick::install_handler().map_err(VcpuError::Handler)?;
        let last = vcpus.iter().map(|vcpu| vcpu.index() + 1).max();
        let mut set = Self {
            seats: (0..possible.max(last.unwrap_or(0)))
                .map(|_| Seat::Empty)
                .collect(),
            platform: Arc::clone(platform),
            runs: false,
        };
        for vcpu in vcpus {
            let index = vcpu.index();
            match start_thread(vcpu, &set.platform) {
                Ok(handle) => set.put(index, Seat::Taken(handle)),
                Err((error, _)) => {
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
        u32::try_from(self.present().count()).unwrap_or(u32::MAX)
    }

    /// How many there can be.
    #[must_use]
    pub fn possible(&self) -> u32 {
        u32::try_from(self.seats.len()).unwrap_or(u32::MAX)
    }

    /// Those that are there, rising.
    pub fn present(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.taken().map(|(index, _)| index)
    }

    /// Whether this one is there.
    #[must_use]
    pub fn is_present(&self, index: u32) -> bool {
        matches!(self.seat(index), Some(Seat::Taken(_)))
    }

    /// Brings in a vCPU that is not there: the one that is kept, or what `make` makes. That and the start of
    /// its thread are done on `spawner`. It runs if the others do: it waits for INIT and SIPI.
    ///
    /// # Errors
    /// What could not be made; it is still not there then.
    #[expect(
        clippy::result_large_err,
        reason = "what cannot be started is given back whole"
    )]
    pub fn bring(
        &mut self,
        index: u32,
        spawner: &Spawner,
        make: impl FnOnce() -> Result<Vcpu, BuildError> + Send + 'static,
    ) -> Result<(), BuildError> {
        // A spare one that it is given is not given back.
        spawner.check_free()?;
        let seat = self.seat_mut(index).ok_or(BuildError::NoSuchVcpu(index))?;
        let kept = match std::mem::replace(seat, Seat::Empty) {
            Seat::Empty => None,
            Seat::Spare(vcpu) => Some(vcpu),
            taken @ Seat::Taken(_) => {
                *seat = taken;
                return Ok(());
            }
        };
        let platform = Arc::clone(&self.platform);
        let started = spawner.run(move || {
            let vcpu = match kept {
                // A guest may have sent it an NMI, or an INIT, which it must not find now.
                Some(vcpu) => match vcpu.reset().and_then(|()| vcpu.prepare_boot()) {
                    Ok(()) => vcpu,
                    Err(error) => return Err((error.into(), Some(vcpu))),
                },
                None => make().map_err(|error| (error, None))?,
            };
            start_thread(vcpu, &platform).map_err(|(error, vcpu)| (error.into(), vcpu))
        })?;
        match started {
            Ok(handle) => {
                if self.runs {
                    handle.order(Order::Run);
                }
                self.put(index, Seat::Taken(handle));
                Ok(())
            }
            Err((error, vcpu)) => {
                self.put(index, vcpu.map_or(Seat::Empty, Seat::Spare));
                Err(error)
            }
        }
    }

    /// Takes a vCPU away, whatever it does: it goes back to power-on, and its thread ends.
    ///
    /// # Errors
    /// [`VcpuError::Unresponsive`]; it is still there then, and stands as soon as it can.
    pub fn take(&mut self, index: u32) -> Result<(), VcpuError> {
        let Some(Seat::Taken(handle)) = self.seat(index) else {
            return Ok(());
        };
        let deadline = Instant::now() + STAND_DEADLINE;
        for order in [Order::Park, Order::Reset] {
            handle.order(order);
            handle.wait_standing(index, deadline)?;
        }
        handle.order(Order::Quit);
        if let Some(Seat::Taken(handle)) = self.seat_mut(index) {
            let thread = handle.thread.take();
            let vcpu = thread.and_then(|thread| thread.join().ok()).flatten();
            self.put(index, vcpu.map_or(Seat::Empty, Seat::Spare));
        }
        Ok(())
    }

    /// The time-stamp counter of the first vCPU, which stands for a moment.
    ///
    /// # Errors
    /// As for [`Self::save`].
    pub fn tsc(&self) -> Result<Tsc, VcpuError> {
        let Some(Seat::Taken(first)) = self.seat(0) else {
            return Err(VcpuError::Unresponsive(0));
        };
        let deadline = Instant::now() + STAND_DEADLINE;
        let state = [Order::Park, Order::Save]
            .into_iter()
            .try_for_each(|order| {
                first.order(order);
                first.wait_standing(0, deadline)
            });
        let cargo = first.slot.take();
        if self.runs {
            first.order(Order::Run);
        }
        state?;
        match cargo {
            Cargo::State(state) => Ok(state.tsc),
            Cargo::Refused(source) => Err(VcpuError::State { index: 0, source }),
            Cargo::Nothing => Err(VcpuError::Unresponsive(0)),
        }
    }

    /// Lets every vCPU run.
    pub fn run(&mut self) {
        self.runs = true;
        self.order(Order::Run);
    }

    /// Makes every vCPU stand between two instructions, and waits for the last one.
    ///
    /// # Errors
    /// [`VcpuError::Unresponsive`]; the others stand.
    pub fn park(&mut self) -> Result<(), VcpuError> {
        self.park_within(STAND_DEADLINE)
    }

    /// As [`park`](Self::park), and waits no longer than `patience`. One that does not stand then does when it
    /// can; whoever asks again hears of it.
    ///
    /// # Errors
    /// As for [`Self::park`].
    pub fn park_within(&mut self, patience: Duration) -> Result<(), VcpuError> {
        self.runs = false;
        self.order(Order::Park);
        self.wait_standing_until(Instant::now() + patience)
    }

    /// Puts every vCPU, standing, back to its power-on state; the first one to `entry`.
    ///
    /// # Errors
    /// As for [`Self::park`].
    pub fn reset(&self) -> Result<(), VcpuError> {
        self.order(Order::Reset);
        self.wait_standing()
    }

    /// The state of every vCPU that is there, all of which stand, by rising index.
    ///
    /// # Errors
    /// As for [`Self::park`], and [`VcpuError::State`].
    pub fn save(&self) -> Result<Vec<(u32, VcpuStateV1)>, VcpuError> {
        self.order(Order::Save);
        self.wait_standing()?;
        self.taken()
            .map(|(index, vcpu)| match vcpu.slot.take() {
                Cargo::State(state) => Ok((index, *state)),
                Cargo::Refused(source) => Err(VcpuError::State { index, source }),
                Cargo::Nothing => Err(VcpuError::Unresponsive(index)),
            })
            .collect()
    }

    /// Puts the states of vCPUs back, all of which stand: one for each that is there, by rising index.
    ///
    /// # Errors
    /// As for [`Self::save`]; none must run then.
    pub fn restore(&self, states: Vec<VcpuStateV1>) -> Result<(), VcpuError> {
        for ((_, vcpu), state) in self.taken().zip(states) {
            vcpu.slot.put(Cargo::State(Box::new(state)));
        }
        self.order(Order::Restore);
        self.wait_standing()?;
        for (index, vcpu) in self.taken() {
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
        for seat in &mut self.seats {
            let Seat::Taken(handle) = seat else { continue };
            if let Some(thread) = handle.thread.take() {
                // A thread that panicked has ended the process already.
                let _ = thread.join();
            }
        }
    }

    fn taken(&self) -> impl DoubleEndedIterator<Item = (u32, &Handle)> {
        let seats = (0..self.possible()).zip(&self.seats);
        seats.filter_map(|(index, seat)| match seat {
            Seat::Taken(handle) => Some((index, handle)),
            Seat::Empty | Seat::Spare(_) => None,
        })
    }

    fn seat(&self, index: u32) -> Option<&Seat> {
        self.seats.get(usize::try_from(index).ok()?)
    }

    fn seat_mut(&mut self, index: u32) -> Option<&mut Seat> {
        self.seats.get_mut(usize::try_from(index).ok()?)
    }

    fn put(&mut self, index: u32, seat: Seat) {
        if let Some(place) = self.seat_mut(index) {
            *place = seat;
        }
    }

    fn order(&self, order: Order) {
        for (_, vcpu) in self.taken() {
            vcpu.order(order);
        }
    }

    fn wait_standing(&self) -> Result<(), VcpuError> {
        self.wait_standing_until(Instant::now() + STAND_DEADLINE)
    }

    fn wait_standing_until(&self, deadline: Instant) -> Result<(), VcpuError> {
        self.taken()
            .try_for_each(|(index, vcpu)| vcpu.wait_standing(index, deadline))
    }
}

/// Starts a standing thread, under the filter of the calling one. Gives the vCPU back if there is none to
/// be had: KVM would not make another of the same index.
fn start_thread(vcpu: Vcpu, platform: &Arc<Platform>) -> Result<Handle, (VcpuError, Option<Vcpu>)> {
    let index = vcpu.index();
    let slot = Arc::new(Slot::new());
    let flag = vcpu.immediate_exit();
    let place = Arc::new(Mutex::new(Some(vcpu)));
    let body = thread::body(Arc::clone(&place), Arc::clone(&slot), Arc::clone(platform));
    let thread = std::thread::Builder::new()
        .name(format!("vcpu{index}"))
        .stack_size(thread::STACK_BYTES)
        .spawn(body);
    match thread {
        Ok(thread) => Ok(Handle {
            slot,
            flag,
            thread: Some(thread),
        }),
        Err(source) => {
            let vcpu = place.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err((VcpuError::Thread { index, source }, vcpu))
        }
    }
}
