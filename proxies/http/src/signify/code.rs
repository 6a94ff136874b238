//! The codes of failures. Numbers and meanings are those that Heroku's router made known, so that dashboards and habits
//! fit; the few that are ours are marked in docs/http.md.

/// To whom a failure belongs: who has to change something for the next request to fare better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Who asked.
    Client,
    /// Who runs the app behind the proxy.
    App,
    /// Who runs the proxy.
    Proxy,
}

impl Owner {
    /// The word in pages, JSON and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::App => "app",
            Self::Proxy => "proxy",
        }
    }
}

macro_rules! codes {
    ($($code:ident $owner:ident $title:literal;)*) => {
        /// Why a request was not served, as one short word that stays the same from release to release.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// Every code, so that a metric can have all its series from the start.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// `H12`.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$code => stringify!($code),)*
                }
            }

            /// A few words for people.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$code => $title,)*
                }
            }

            /// Whose it is.
            pub fn owner(self) -> Owner {
                match self {
                    $(Self::$code => Owner::$owner,)*
                }
            }
        }
    };
}

codes! {
    H10 App "App crashed";
    H11 App "Backlog too deep";
    H12 App "Request timeout";
    H13 App "Connection closed without response";
    H14 App "No server is running";
    H15 App "Idle connection";
    H17 App "Poorly formatted response";
    H18 App "Server interrupted the response";
    H19 App "Connecting to the server timed out";
    H20 App "App boot timeout";
    H21 App "Server refused the connection";
    H22 Proxy "Connection limit reached";
    H25 App "Response over a limit";
    H26 Client "Request error";
    H27 Client "Client left";
    H28 Client "Client too slow";
    H30 Client "No such app";
    H31 Client "Misdirected request";
    H80 App "Maintenance mode";
    H99 Proxy "Proxy error";
}

impl Code {
    /// The code of that label.
    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.label() == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_one_code() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.label()), Some(*code));
            assert!(code.label().len() == 3 && code.label().starts_with('H'), "{}", code.label());
        }
        assert_eq!(Code::parse("H1"), None);
    }
}
