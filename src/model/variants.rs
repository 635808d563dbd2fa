//! Taking the answer of the kind that was asked for.

/// For an enum of answers: a method for each variant, which takes what is in it.
macro_rules! take_variants {
    ($enum:ident, $($name:ident: $variant:ident => $type:ty),* $(,)?) => {
        impl $enum {
            $(pub(crate) fn $name(self) -> $type {
                match self {
                    Self::$variant(answer) => answer,
                    other => unreachable!("the store answered {other:?} where {} was due", stringify!($variant)),
                }
            })*
        }
    };
}
pub(crate) use take_variants;
