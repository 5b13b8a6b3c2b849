//! What becomes of the list of calls: a type for the arguments of each, the two wire enums, and the table.

/// The arguments of calls: a type for each, named after it.
macro_rules! arguments {
    ($( $(#[$doc:meta])* $name:ident $fields:tt; )*) => {
        $( arguments!(@type $(#[$doc])* $name $fields); )*
    };

    // They are elsewhere.
    (@type $(#[$doc:meta])* $name:ident {..}) => {};
    (@type $(#[$doc:meta])* $name:ident {}) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {}
    };
    (@type $(#[$doc:meta])* $name:ident { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name { $( $(#[$fdoc])* pub $field: $ty, )+ }
    };
}

/// The list: `{..}` for arguments that are named, with what is said of the call, in a file of their own.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident $fields:tt -> $answer:ty,
        call $call:literal, access $access:ident, idempotent $idempotent:literal;
    )*) => {
        $( arguments!(@type $(#[$doc])* $name $fields); )*

        /// A call on the wire. Positional: new ones are added at the end.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum CallBody { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name($name), )* }

        /// An answer on the wire, named after its call.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum AnswerBody { $( #[doc = concat!("Answers [`", stringify!($name), "`].")] $name($answer), )* }

        /// The operations, without their arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name, )* }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The operation's name, as messages and logs print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $call, )* }
            }

            /// The access it needs.
            #[must_use]
            pub const fn access(self) -> Access {
                match self { $( Self::$name => Access::$access, )* }
            }

            /// Whether sending it a second time, when its answer was lost, changes nothing.
            #[must_use]
            pub const fn is_idempotent(self) -> bool {
                match self { $( Self::$name => $idempotent, )* }
            }
        }

        impl CallBody {
            /// Which operation this is.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self { $( Self::$name(_) => Operation::$name, )* }
            }
        }

        impl AnswerBody {
            /// Which operation this answers.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self { $( Self::$name(_) => Operation::$name, )* }
            }
        }

        $(
            impl Call for $name {
                type Answer = $answer;
                const OPERATION: Operation = Operation::$name;

                fn into_body(self) -> CallBody { CallBody::$name(self) }

                fn answer_from(body: AnswerBody) -> Option<$answer> {
                    match body {
                        AnswerBody::$name(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )*
    };
}
