//! What the fuzz targets drive, shared with `tests/fuzz.rs`, which runs each for a short while: the
//! machine of all legacy devices, a queue, the transport, each virtio device with its host's side, and
//! qcow2 images.

pub mod balloon;
pub mod block;
pub mod bus;
pub mod console;
pub mod display;
pub mod driver;
pub mod firmware;
pub mod flash;
pub mod guest;
pub mod input;
pub mod input_device;
pub mod machine;
pub mod mem;
pub mod net;
pub mod qcow2;
pub mod queue;
pub mod rng;
pub mod sockets;
pub mod thread;
pub mod transport;
pub mod vsock;

/// What a target does with its bytes.
pub type Run = fn(&[u8]);

/// The targets' names, which are those of their seeds' folders too, and what each does.
pub const TARGETS: &[(&str, Run)] = &[
    ("registers", |bytes| machine::Machine::new().run(bytes)),
    ("restore", |bytes| machine::Machine::new().restore(bytes)),
    ("queue", queue::run),
    ("transport", transport::run),
    ("block", guest::run::<block::Disk>),
    ("net", guest::run::<net::Interface>),
    ("console", guest::run::<console::Terminals>),
    ("vsock", guest::run::<vsock::Sockets>),
    ("rng", guest::run::<rng::Rng>),
    ("balloon", guest::run::<balloon::Lent>),
    ("input", guest::run::<input_device::Device>),
    ("mem", guest::run::<mem::Memory>),
    ("qcow2", qcow2::run),
    ("firmware", firmware::run),
    ("flash", flash::run),
    ("display", display::run),
];
