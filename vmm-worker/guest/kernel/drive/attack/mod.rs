//! stub
use super::Problem;
use super::options::Options;
use super::pci::Bus;
use crate::boot::Boot;
pub fn run(_boot: &Boot, _bus: Bus, _options: &Options) -> Result<(), Problem> {
    Err("none")
}
