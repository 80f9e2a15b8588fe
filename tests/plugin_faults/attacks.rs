//! A list of attacks is a list of tests.

/// `attacks! { name = function(arguments), … }`: every row is a test of that name that plays `function(stage, arguments)`, and a row of
/// the module's `ATTACKS`.
macro_rules! attacks {
    ($($(#[$about:meta])* $name:ident = $function:ident($($argument:expr),* $(,)?)),* $(,)?) => {
        /// What this module attacks with.
        pub(crate) const ATTACKS: &[crate::Attack] = &[
            $(crate::Attack { name: stringify!($name), run: |stage| Box::pin($function(stage, $($argument),*)) }),*
        ];

        mod played {
            $(
                $(#[$about])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let attack = super::ATTACKS.iter().find(|attack| attack.name == stringify!($name)).unwrap();
                    crate::stage::play(attack).await;
                }
            )*
        }
    };
}
