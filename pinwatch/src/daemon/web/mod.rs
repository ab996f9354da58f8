//! HTTP for Prometheus: metrics, a landing page, health. Bounded: the number of connections, how long each may take, and only
//! requests without a body.

mod auth;
mod config;
mod listen;
mod pages;
mod problem;
mod tls;
mod watched_file;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::core::Core;
use auth::{Answer, Doorman};
use config::{Config, Loaded};
use listen::ListenError;
use pages::Body;
use problem::ConfigError;

pub use listen::ADDRESS;
pub use pages::check_path;

/// So many connections are served at once; more are turned away.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take for a handshake, or for the head of a request, the pause before it included.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a client may take nothing of its answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const HEAD: usize = 16 << 10;

/// What is asked for on the command line.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; `None`: at [`ADDRESS`], if nobody else does.
    pub addresses: Option<Vec<String>>,
    /// Where the metrics are.
    pub path: String,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { addresses: None, path: "/metrics".to_owned(), config: None }
    }
}

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The configuration is wrong.
    #[error("cannot use the web configuration: {0}")]
    Config(#[from] ConfigError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A server that does not serve yet: connections wait until it does.
pub struct Web {
    listeners: Vec<TcpListener>,
    /// Why nobody listens at the default address, if so.
    unavailable: Option<io::Error>,
    loaded: RefCell<Loaded>,
    has_config: bool,
    path: String,
    doorman: Doorman,
    places: Arc<Semaphore>,
}

impl Web {
    /// Reads the configuration and listens.
    ///
    /// # Errors
    /// [`WebError`]
    pub fn bind(settings: &Settings) -> Result<Self, WebError> {
        let loaded = Loaded::read(settings.config.as_deref())?;
        let (listeners, unavailable) = listen::listeners(settings.addresses.as_deref())?;
        Ok(Self {
            listeners,
            unavailable,
            loaded: RefCell::new(loaded),
            has_config: settings.config.is_some(),
            path: settings.path.clone(),
            doorman: Doorman::default(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// Serves, in tasks of the local set, for as long as that lives.
    pub fn serve(mut self, core: &Rc<RefCell<Core>>) {
        core.borrow_mut().http().configured = self.has_config.then_some(true);
        if let Some(error) = &self.unavailable {
            warn!(%error, "metrics are not served: {ADDRESS} is not free; --web.listen-address chooses another");
        }
        let listeners = std::mem::take(&mut self.listeners);
        let web = Rc::new(self);
        for listener in listeners {
            let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
            let tls = web.loaded.borrow().config.tls.is_some();
            info!(address, tls, "metrics are served");
            tokio::task::spawn_local(web.clone().accept(listener, core.clone()));
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, core: Rc<RefCell<Core>>) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "an HTTP client cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                core.borrow_mut().http().turned_away += 1;
                continue;
            };
            let (web, core) = (self.clone(), core.clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = web.connection(stream, &core).await {
                    debug!(%error, "an HTTP client went away");
                }
                drop(place);
            });
        }
    }

    async fn connection(&self, stream: TcpStream, core: &RefCell<Core>) -> io::Result<()> {
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(PATIENCE));
        stream.set_write_timeout(Some(WRITE_PATIENCE));
        let stream = Box::pin(stream);
        match self.config(core).tls.clone() {
            None => self.requests(stream, core).await,
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls).accept(stream);
                let stream = tokio::time::timeout(PATIENCE, handshake).await??;
                self.requests(stream, core).await
            }
        }
    }

    async fn requests(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        core: &RefCell<Core>,
    ) -> io::Result<()> {
        let service = service_fn(|request| self.answer(request, core));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(io), service)
            .await
            .map_err(io::Error::other)
    }

    /// The configuration as it is now; if it has errors, as it was.
    fn config(&self, core: &RefCell<Core>) -> Arc<Config> {
        let mut loaded = self.loaded.borrow_mut();
        match loaded.follow() {
            Ok(false) => {}
            Ok(true) => {
                info!("the web configuration was read again");
                core.borrow_mut().http().configured = Some(true);
            }
            Err(error) => {
                warn!(%error, "the new web configuration cannot be used: the old one stays in use");
                core.borrow_mut().http().configured = Some(false);
            }
        }
        loaded.config.clone()
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        core: &RefCell<Core>,
    ) -> Result<Response<Body>, Infallible> {
        let config = self.config(core);
        let header = request.headers().get(AUTHORIZATION);
        let mut response = match self.doorman.check(&config.users, header).await {
            Answer::Welcome => pages::answer(&request, &self.path, core),
            Answer::Unknown => {
                core.borrow_mut().http().unauthorized += 1;
                pages::unauthorized()
            }
            Answer::Later => pages::later(),
        };
        debug!(path = request.uri().path(), status = response.status().as_u16(), "HTTP");
        for (name, value) in &config.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(response)
    }
}
