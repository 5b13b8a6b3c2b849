//! Which function serves which procedure.

use std::sync::Arc;

use super::failure::Failure;
use super::{
    Begun, Context, absent, connect, define, devices, domstats, info, labels, lifecycle, list,
    lookup, memory, procedure, start, statistics, vcpus,
};
use crate::wire::call::Call as _;
use crate::wire::frame::{Header, Program};
use crate::wire::types as wire;

/// Declares [`begin`], and [`SERVED`] for the table of procedures.
macro_rules! served {
    ($($call:path => $handler:path;)*) => {
        /// Numbers of the procedures of the main program that are served here.
        #[cfg(test)]
        pub(crate) const SERVED: &[i32] = &[$(<$call>::NUMBER),*];

        /// Begins a call.
        ///
        /// # Errors
        /// It is not served, or its arguments are none.
        pub(crate) fn begin(
            context: &Arc<Context>,
            header: Header,
            payload: &[u8],
        ) -> Result<Begun, Failure> {
            if header.program == Program::Remote.number() {
                $(if header.procedure == <$call>::NUMBER {
                    return start::<$call, _>(context, header, payload, $handler);
                })*
            }
            Err(no_support(procedure(header)?.api))
        }
    };
}

served! {
    wire::domain::DomainGetState => info::state;
}
