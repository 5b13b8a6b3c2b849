//! What planning opens, seals and refuses.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

use reeve_ipc::model::{
    BootSource, DomainUuid, KernelBoot, Labels, LifecycleAction, OnCrash, OnPowerOff, OnReboot,
    Platform, ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, EndAction, MachineType, ResetAction};
use rustix::fs::{FileType, SealFlags};
use uuid::Uuid;

use super::boot::{built_in_image, open_image};
use super::*;
use crate::host::sockets::Place;

fn domain(boot: BootSource) -> Domain {
    Domain {
        name: "planned".parse().unwrap(),
        uuid: DomainUuid(Uuid::from_u128(7)),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(2).unwrap(),
        max_vcpus: Vcpus::try_from(2).unwrap(),
        platform: Platform::default(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(64),
        boot,
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

fn built_in() -> BootSource {
    BootSource::BuiltIn {
        command_line: "report".to_owned(),
    }
}

fn kernel(path: &Path) -> BootSource {
    BootSource::Kernel(KernelBoot {
        kernel: path.to_owned(),
        initrd: None,
        command_line: String::new(),
    })
}

/// Every image builds upon nothing.
#[derive(Debug)]
struct NoImages;

impl BackingReader for NoImages {
    fn backing(
        &self,
        _: std::os::fd::BorrowedFd<'_>,
    ) -> Result<Option<reeve_ipc::image::BackingNote>, ReadError> {
        Ok(None)
    }
}

fn files(paths: &dyn PathPolicy) -> Files<'_> {
    Files {
        paths,
        images: &NoImages,
    }
}

fn options() -> PlanOptions<'static> {
    PlanOptions {
        files: files(&AnyPath),
        network: NicPolicy::default(),
        kept: None,
        hold: true,
        console: None,
        on_control_loss: ControlLoss::Stop,
    }
}

#[test]
fn guest_memory_can_neither_shrink_nor_grow() {
    let fd = guest_memory(MemorySize::mebibytes(16)).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
    assert!(!seals.contains(SealFlags::WRITE));
    assert!(rustix::fs::ftruncate(&fd, 4096).is_err());
    assert!(rustix::fs::ftruncate(&fd, 32 << 20).is_err());
    assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size, 16 << 20);
    assert!(is_close_on_exec(&fd));
}

#[test]
fn the_built_in_image_is_whole_and_cannot_be_changed() {
    for (command_line, whole) in [
        ("", reeve_guest::IMAGE),
        ("mode=virtio-report", reeve_guest::DRIVERS_IMAGE),
    ] {
        let fd = built_in_image(command_line).unwrap();
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        assert!(is_close_on_exec(&fd));
        let mut image = Vec::new();
        std::fs::File::from(fd).read_to_end(&mut image).unwrap();
        assert_eq!(image, whole);
    }
}

fn is_close_on_exec(fd: &OwnedFd) -> bool {
    rustix::io::fcntl_getfd(fd)
        .unwrap()
        .contains(rustix::io::FdFlags::CLOEXEC)
}

#[test]
fn a_plan_names_every_descriptor_once() {
    if open_kvm().is_err() {
        // The first step of any plan; its refusal is tested with the command line.
        assert!(matches!(
            plan(&domain(built_in()), &HostCpuid::default(), options()),
            Err(PlanError::Kvm(_))
        ));
        return;
    }
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let number = theirs.as_raw_fd();
    let with_console = PlanOptions {
        console: Some(theirs.into()),
        ..options()
    };
    let mut plan = plan(&domain(built_in()), &HostCpuid::default(), with_console).unwrap();
    assert_eq!(plan.fds.remaining(), 4);
    let MemoryBacking::Shared { fd: memory } = plan.spec.memory.backing else {
        panic!("a shared memfd")
    };
    let slots = [plan.spec.kvm, plan.spec.boot.kernel, memory];
    for slot in slots {
        plan.fds.take(slot).unwrap();
    }
    let console = plan.fds.take(plan.spec.console.unwrap()).unwrap();
    assert_eq!(console.as_raw_fd(), number);
    assert_eq!(plan.fds.remaining(), 0);
    assert_eq!(plan.spec.vcpus, 2);
    assert_eq!(plan.spec.memory.size_bytes, 64 << 20);
    assert_eq!(plan.spec.boot.command_line, "report");
    assert!(plan.spec.hold);
}

#[test]
fn a_kernel_that_is_no_file_is_named_with_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let error = open_image("kernel", &AnyPath, directory.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is a directory, not a file; check --kernel")
    );

    let missing = directory.path().join("vmlinux");
    let error = open_image("kernel", &AnyPath, &missing)
        .unwrap_err()
        .to_string();
    assert!(error.contains(&missing.display().to_string()), "{error}");
    assert!(error.contains("no such file or directory"), "{error}");

    let error = open_image("initrd", &AnyPath, Path::new("/dev/null")).unwrap_err();
    assert!(error.to_string().contains("check --initrd"));
}

#[test]
fn a_pipe_in_place_of_a_kernel_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let error = open_image("kernel", &AnyPath, &fifo).unwrap_err();
    assert!(error.to_string().contains("is a pipe"));
}

#[test]
fn a_definition_out_of_range_opens_nothing() {
    let mut tiny = domain(kernel(Path::new("/nonexistent")));
    tiny.memory = MemorySize(4096);
    assert!(matches!(
        plan(&tiny, &HostCpuid::default(), options()),
        Err(PlanError::Model(ModelError::Memory(_)))
    ));
    let mut long = domain(built_in());
    long.boot = BootSource::BuiltIn {
        command_line: "x".repeat(2048),
    };
    assert!(matches!(
        plan(&long, &HostCpuid::default(), options()),
        Err(PlanError::Model(ModelError::CommandLine(2048)))
    ));
}

#[test]
fn what_a_guests_end_means_is_carried_over() {
    let policy = end_policy(LifecycleAction {
        on_power_off: OnPowerOff::Preserve,
        on_reboot: OnReboot::Destroy,
        on_crash: OnCrash::Preserve,
    });
    assert_eq!(policy.on_power_off, EndAction::Preserve);
    assert_eq!(policy.on_reset, ResetAction::Exit);
    assert_eq!(policy.on_crash, EndAction::Preserve);
    let policy = end_policy(LifecycleAction::default());
    assert_eq!(policy.on_power_off, EndAction::Exit);
    assert_eq!(policy.on_reset, ResetAction::Reset);
    assert_eq!(policy.on_crash, EndAction::Exit);
}

#[derive(Debug)]
struct Nowhere;

impl PathPolicy for Nowhere {
    fn open_read(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        Err(PathError::Forbidden(format!(
            "the {what} {} is not allowed",
            path.display()
        )))
    }

    fn open_image(&self, what: &str, path: &Path, _: ImageAccess) -> Result<OwnedFd, PathError> {
        self.open_read(what, path)
    }

    fn open_directory(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        self.open_read(what, path)
    }

    fn place(&self, what: &str, path: &Path) -> Result<Place, PathError> {
        Err(self.open_read(what, path).unwrap_err())
    }
}

#[test]
fn a_path_that_the_policy_forbids_is_not_opened() {
    let options = PlanOptions {
        files: files(&Nowhere),
        ..options()
    };
    let domain = domain(kernel(Path::new("/proc/self/exe")));
    let error = plan(&domain, &HostCpuid::ask_early(), options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel /proc/self/exe is not allowed"
    );
}

#[test]
fn a_kept_worker_ends_with_nothing_but_its_supervisor() {
    let (listener, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let options = PlanOptions {
        kept: Some(SpecDigest([7; 16])),
        ..options()
    };
    let mut domain = domain(built_in());
    domain.lifecycle.on_reboot = OnReboot::Destroy;
    let mut plan = plan(&domain, &HostCpuid::ask_early(), options).unwrap();
    plan.wait_on(listener.into()).unwrap();
    let spec = plan.spec;
    assert_eq!(spec.policy.on_power_off, EndAction::Preserve);
    assert_eq!(spec.policy.on_crash, EndAction::Preserve);
    assert_eq!(spec.policy.on_reset, ResetAction::Preserve);
    assert_eq!(spec.on_control_loss, ControlLoss::KeepRunning);
    assert_eq!(spec.digest, SpecDigest([7; 16]));
    assert!(spec.adoption.is_some());
}

mod devices;
