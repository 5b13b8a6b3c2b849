//! The ioctl numbers that filters name (linux/kvm.h, asm-generic/ioctls.h), as x86_64 has them.
//!
//! The kernel's ioctl command is an `unsigned int`: comparing 32 bits compares all of it.

/// `_IO(KVMIO, nr)`.
const fn io(nr: u32) -> u32 {
    0xae00 | nr
}

/// `_IOW(KVMIO, nr, size)`: userspace writes.
const fn iow(nr: u32, size: u32) -> u32 {
    1 << 30 | size << 16 | io(nr)
}

/// `_IOR(KVMIO, nr, size)`: userspace reads.
const fn ior(nr: u32, size: u32) -> u32 {
    2 << 30 | size << 16 | io(nr)
}

/// `_IOWR(KVMIO, nr, size)`.
const fn iowr(nr: u32, size: u32) -> u32 {
    3 << 30 | size << 16 | io(nr)
}

/// `_IOW(VHOST_VIRTIO, nr, size)` (linux/vhost.h), and for size 0 `_IO(VHOST_VIRTIO, nr)`.
const fn vhost(nr: u32, size: u32) -> u32 {
    let direction = if size == 0 { 0 } else { 1 };
    direction << 30 | size << 16 | 0xaf00 | nr
}

macro_rules! numbers {
    ($($name:ident = $value:expr;)*) => {
        $(#[allow(missing_docs, reason = "the kernel's own name says it")]
          #[allow(dead_code, reason = "some are named by tests only")]
          pub const $name: u32 = $value;)*
    };
}

numbers! {
    // /dev/kvm
    KVM_GET_API_VERSION = io(0x00);
    KVM_CREATE_VM = io(0x01);
    KVM_GET_MSR_INDEX_LIST = iowr(0x02, 4);
    KVM_CHECK_EXTENSION = io(0x03);
    KVM_GET_VCPU_MMAP_SIZE = io(0x04);
    KVM_GET_SUPPORTED_CPUID = iowr(0x05, 8);
    KVM_GET_MSR_FEATURE_INDEX_LIST = iowr(0x0a, 4);

    // a VM
    KVM_CREATE_VCPU = io(0x41);
    KVM_SET_USER_MEMORY_REGION = iow(0x46, 32);
    KVM_SET_TSS_ADDR = io(0x47);
    KVM_SET_IDENTITY_MAP_ADDR = iow(0x48, 8);
    KVM_SET_USER_MEMORY_REGION2 = iow(0x49, 160);
    KVM_CREATE_IRQCHIP = io(0x60);
    KVM_IRQ_LINE = iow(0x61, 8);
    KVM_GET_IRQCHIP = iowr(0x62, 520);
    KVM_SET_IRQCHIP = ior(0x63, 520);
    KVM_SET_GSI_ROUTING = iow(0x6a, 8);
    KVM_IRQFD = iow(0x76, 32);
    KVM_CREATE_PIT2 = iow(0x77, 64);
    KVM_IOEVENTFD = iow(0x79, 64);
    KVM_SET_CLOCK = iow(0x7b, 48);
    KVM_GET_CLOCK = ior(0x7c, 48);
    KVM_GET_PIT2 = ior(0x9f, 112);
    KVM_SET_PIT2 = iow(0xa0, 112);
    KVM_SIGNAL_MSI = iow(0xa5, 32);
    KVM_X86_SET_MSR_FILTER = iow(0xc6, 392);
    KVM_CREATE_DEVICE = iowr(0xe0, 12);

    // a VM or a vCPU
    KVM_SET_TSC_KHZ = io(0xa2);
    KVM_GET_TSC_KHZ = io(0xa3);
    KVM_ENABLE_CAP = iow(0xa3, 104);

    // a vCPU
    KVM_RUN = io(0x80);
    KVM_GET_REGS = ior(0x81, 144);
    KVM_SET_REGS = iow(0x82, 144);
    KVM_GET_SREGS = ior(0x83, 312);
    KVM_SET_SREGS = iow(0x84, 312);
    KVM_INTERRUPT = iow(0x86, 4);
    KVM_GET_MSRS = iowr(0x88, 8);
    KVM_SET_MSRS = iow(0x89, 8);
    KVM_GET_FPU = ior(0x8c, 416);
    KVM_SET_FPU = iow(0x8d, 416);
    KVM_GET_LAPIC = ior(0x8e, 1024);
    KVM_SET_LAPIC = iow(0x8f, 1024);
    KVM_SET_CPUID2 = iow(0x90, 8);
    KVM_GET_CPUID2 = iowr(0x91, 8);
    KVM_GET_MP_STATE = ior(0x98, 4);
    KVM_SET_MP_STATE = iow(0x99, 4);
    KVM_NMI = io(0x9a);
    KVM_GET_VCPU_EVENTS = ior(0x9f, 64);
    KVM_SET_VCPU_EVENTS = iow(0xa0, 64);
    KVM_GET_DEBUGREGS = ior(0xa1, 128);
    KVM_SET_DEBUGREGS = iow(0xa2, 128);
    KVM_GET_XSAVE = ior(0xa4, 4096);
    KVM_SET_XSAVE = iow(0xa5, 4096);
    KVM_GET_XCRS = ior(0xa6, 392);
    KVM_SET_XCRS = iow(0xa7, 392);
    KVM_KVMCLOCK_CTRL = io(0xad);
    KVM_SET_DEVICE_ATTR = iow(0xe1, 24);
    KVM_GET_DEVICE_ATTR = iow(0xe2, 24);
    KVM_GET_SREGS2 = ior(0xcc, 320);
    KVM_SET_SREGS2 = iow(0xcd, 320);
    KVM_GET_XSAVE2 = ior(0xcf, 4096);

    // a tap; none of the others, by which a worker could make it outlive itself or change its address
    TUNSETOFFLOAD = 0x4004_54d0;
    TUNSETVNETHDRSZ = 0x4004_54d8;
    TUNSETQUEUE = 0x4004_54d9;

    // /dev/vhost-net; none that would have the kernel write a log, set up the address translation of an IOMMU or
    // deal with the kernel's own threads. What a word says that one of these points to (VHOST_SET_FEATURES), and what
    // is written to the descriptor, a filter does not see.
    VHOST_GET_FEATURES = 0x8008_af00;
    VHOST_SET_FEATURES = vhost(0x00, 8);
    VHOST_SET_OWNER = vhost(0x01, 0);
    VHOST_RESET_OWNER = vhost(0x02, 0);
    VHOST_SET_MEM_TABLE = vhost(0x03, 8);
    VHOST_SET_VRING_NUM = vhost(0x10, 8);
    VHOST_SET_VRING_ADDR = vhost(0x11, 40);
    VHOST_SET_VRING_BASE = vhost(0x12, 8);
    VHOST_GET_VRING_BASE = 0xc008_af12;
    VHOST_SET_VRING_KICK = vhost(0x20, 8);
    VHOST_SET_VRING_CALL = vhost(0x21, 8);
    VHOST_SET_VRING_ERR = vhost(0x22, 8);
    VHOST_NET_SET_BACKEND = vhost(0x30, 8);

    // any descriptor
    FIONBIO = 0x5421;
}
