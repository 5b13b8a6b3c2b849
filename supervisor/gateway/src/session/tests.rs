//! A session between a client that says what it likes and a supervisor that follows a script.

mod agent;
mod calls;
mod console;
mod devices;
mod events;
mod harness;
mod host;
mod hostile;
mod inside;
mod interfaces;
mod nets;
mod networks;
mod nwfilters;
mod one;
mod opening;
mod states;
mod storage;
mod store;
mod transfers;
mod tuning;
mod virsh;
mod without;
