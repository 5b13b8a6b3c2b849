//! The exit codes a worker reserves, so that its parent can tell an orderly end from a failure even
//! when no message came through.

/// The guest ended or the supervisor asked for the end; an event said which.
pub const ORDERLY: u8 = 0;
/// The jail could not be entered; a report on the log socket says at which step.
pub const JAIL: u8 = 70;
/// The first messages were not those of this build's supervisor.
pub const HANDSHAKE: u8 = 71;
/// The control socket was lost and the specification said to stop then.
pub const CONTROL_LOST: u8 = 72;
/// The worker panicked; an event named the place.
pub const PANIC: u8 = 73;
/// A fault of the worker's own code (SIGSEGV, SIGBUS, SIGILL, SIGFPE); an event named the signal.
pub const FATAL_SIGNAL: u8 = 75;
/// A thread of the worker could not go on with its host resources.
pub const HOST: u8 = 74;
