//! Stock Linux under real clients of libvirt's protocol, in the lab: virsh and virt-install as an
//! administrator types them, and what the guest sees of it.

mod cables;
mod frames;
mod host;
mod install;
mod kept;
mod modes;
mod networks;
mod peek;
mod tenants;
mod walk;
