//! libvirt's remote protocol as bytes: packets, XDR, procedures with their arguments and replies. Knows nothing of
//! what they mean.
