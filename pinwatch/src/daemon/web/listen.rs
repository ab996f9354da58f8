//! Where HTTP is listened for: addresses of the command line, or sockets that systemd hands over.

use std::io;
use std::net::{TcpListener as StdListener, ToSocketAddrs};

use listenfd::ListenFd;
use tokio::net::TcpListener;

/// Where the daemon listens by default.
pub const ADDRESS: &str = "127.0.0.1:9746";

/// Why it cannot be listened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// At an address.
    #[error("cannot listen at {address}: {error}; choose another --web.listen-address, or none with \"\"")]
    Address {
        /// Which.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// At a socket that was handed over.
    #[error(
        "cannot use the socket that systemd hands over: {0}; it has to be of ListenStream= with an address"
    )]
    Activated(io::Error),
}

/// Listens. `None` means the default address, which is not worth failing for: who runs the daemon for `lspins` alone may have
/// something else there. Then there is a reason besides.
pub fn listeners(addresses: Option<&[String]>) -> Result<(Vec<TcpListener>, Option<io::Error>), ListenError> {
    let mut activated = ListenFd::from_env();
    let (mut all, mut taken) = (Vec::new(), None);
    for at in 0..activated.len() {
        if let Some(listener) = activated.take_tcp_listener(at).map_err(ListenError::Activated)? {
            all.push(ready(listener).map_err(ListenError::Activated)?);
        }
    }
    let failed = |address: &str| {
        let address = address.to_owned();
        move |error| ListenError::Address { address, error }
    };
    match addresses {
        None if all.is_empty() => match bind(ADDRESS) {
            Ok(listener) => all.push(listener),
            Err(error) => taken = Some(error),
        },
        None => {}
        Some(addresses) => {
            for address in addresses.iter().filter(|address| !address.is_empty()) {
                all.push(bind(address).map_err(failed(address))?);
            }
        }
    }
    Ok((all, taken))
}

/// `host:port`, `[v6]:port`, or `:port` for all addresses of the machine.
fn bind(address: &str) -> io::Result<TcpListener> {
    if let Some(port) = address.strip_prefix(':') {
        let port: u16 = port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no port"))?;
        // A machine without IPv6 has only the other.
        let listener = StdListener::bind(("::", port)).or_else(|_| StdListener::bind(("0.0.0.0", port)))?;
        return ready(listener);
    }
    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
    ready(StdListener::bind(&addresses[..])?)
}

fn ready(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(addresses: &[&str]) -> Result<Vec<TcpListener>, ListenError> {
        let owned: Vec<String> = addresses.iter().map(|&address| address.to_owned()).collect();
        listeners(Some(&owned)).map(|(all, _)| all)
    }

    #[tokio::test]
    async fn addresses_of_every_form() {
        let all = listen(&["127.0.0.1:0", "localhost:0", ":0"]).unwrap();
        assert_eq!(all.len(), 3);
        assert!(all[0].local_addr().unwrap().ip().is_loopback());
        assert!(listen(&[""]).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_address_or_taken_is_an_error_that_names_it() {
        let taken = listen(&["127.0.0.1:0"]).unwrap()[0].local_addr().unwrap().to_string();
        let first = StdListener::bind("127.0.0.1:0").unwrap();
        let busy = first.local_addr().unwrap().to_string();
        for address in ["nonsense", ":x", ":99999", "127.0.0.1", busy.as_str()] {
            let error = listen(&[address]).unwrap_err().to_string();
            assert!(error.contains(address) && error.contains("--web.listen-address"), "{error}");
        }
        assert!(listen(&[&taken]).is_ok(), "a listener that went leaves its address free");
    }
}
