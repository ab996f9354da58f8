//! What the path of a control group says of the process in it: its systemd unit, its container, its Kubernetes pod.
//!
//! Nobody is asked but the path, so that it works for a process that is gone and on any machine. What is recognised:
//! Kubernetes with the systemd and the cgroupfs driver, and containers of docker, containerd, CRI-O and podman, as each of
//! them names its groups.

use serde::Serialize;

/// What a path names. Text in it is as the path has it: hexadecimal ids and unit names only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// The innermost systemd unit.
    pub unit: Option<String>,
    /// The container's id: 64 hexadecimal digits.
    pub container: Option<String>,
    /// The Kubernetes pod's uid, as `kubectl` prints it.
    pub pod: Option<String>,
}

/// Longer paths than the kernel has (`PATH_MAX`) are not looked at.
const LONGEST: usize = 4096;
/// Digits of a container's id.
const ID: usize = 64;

impl Workload {
    /// Reads a path.
    pub fn of(path: &[u8]) -> Self {
        let mut workload = Self::default();
        if path.len() > LONGEST {
            return workload;
        }
        let Ok(path) = std::str::from_utf8(path) else { return workload };
        // containerd told to use systemd, but given a name for cgroupfs, puts all of it into one component.
        for part in path.split(['/', ':']) {
            if let Some(pod) = pod(part) {
                workload.pod = Some(pod);
            }
            if let Some(id) = container(part) {
                workload.container = Some(id.to_owned());
            }
            if is_unit(part) {
                workload.unit = Some(part.to_owned());
            }
        }
        workload
    }
}

/// A service or scope; slices only group them.
fn is_unit(part: &str) -> bool {
    let name = part.strip_suffix(".service").or_else(|| part.strip_suffix(".scope"));
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic()))
}

/// `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`. The monitors that run beside a
/// container (`crio-conmon-ID.scope`) are not in it.
fn container(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let prefixes = ["docker-", "cri-containerd-", "crio-", "libpod-"];
    let id = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    (id.len() == ID && is_hexadecimal(id)).then_some(id)
}

/// `podUID`, or `kubepods-burstable-podUID.slice`, in which systemd's rules make underscores of dashes.
fn pod(part: &str) -> Option<String> {
    let name = match part.strip_suffix(".slice") {
        Some(slice) => slice.strip_prefix("kubepods")?.rsplit('-').next()?,
        None => part,
    };
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    // A static pod's is a hash: 32 digits without dashes.
    let fits = match uid.len() {
        36 => uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && uid.split('-').all(is_hexadecimal),
        32 => is_hexadecimal(&uid),
        _ => false,
    };
    fits.then_some(uid)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
    const POD: &str = "0d6f1c9e-2b7a-4f53-9a51-4f1c2d3e4b5a";

    fn of(path: &str) -> (Option<String>, Option<String>, Option<String>) {
        let path = path.replace("ID", CONTAINER).replace("POD", POD).replace("P_D", &POD.replace('-', "_"));
        let Workload { unit, container, pod } = Workload::of(path.as_bytes());
        (unit.map(|unit| unit.replace(CONTAINER, "ID")), container, pod)
    }

    #[test]
    fn units() {
        let unit = |path| of(path).0;
        assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx.service"));
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db@1.service";
        assert_eq!(unit(user).as_deref(), Some("app-a\\x2db@1.service"));
        assert_eq!(unit("/user.slice/user-0.slice/session-3.scope").as_deref(), Some("session-3.scope"));
        assert_eq!(unit("/system.slice/nginx.service/worker").as_deref(), Some("nginx.service"));
        for path in ["/", "", "/system.slice", "/.service", "/a\u{1b}[31m.service"] {
            assert_eq!(unit(path), None, "{path:?}");
        }
    }

    #[test]
    fn containers_of_every_runtime_and_driver() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-podP_D.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-podP_D.slice/crio-ID.scope/container",
            "/kubepods/besteffort/podPOD/ID",
            "/kubepods/podPOD/crio-ID",
            "/system.slice/containerd.service/kubepods-burstable-podP_D.slice:cri-containerd:ID",
            "/machine.slice/libpod-ID.scope/container",
            "/../../kubepods/burstable/podPOD/ID",
        ] {
            let (_, container, pod) = of(path);
            assert_eq!(container.as_deref(), Some(CONTAINER), "{path}");
            assert_eq!(
                pod.as_deref(),
                path.contains("pod").then_some(POD).filter(|_| path.contains("kube")),
                "{path}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_one() {
        for path in [
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/kubepods-podP_D.slice/crio-conmon-ID.scope",
            "/docker/IDa",
            "/docker/3f4e",
        ] {
            assert_eq!(of(path).1, None, "{path}");
        }
        for path in ["/podium/x", "/pod0d6f", "/a.slice/podPOD.slice", "/kubepods/podzzzz"] {
            assert_eq!(of(path).2, None, "{path}");
        }
        assert_eq!(of("/kubepods/pod0123456789abcdef0123456789abcdef/ID").2.map(|pod| pod.len()), Some(32));
    }

    #[test]
    fn hostile_paths_name_nothing() {
        let long = format!("/{}/nginx.service", "a".repeat(5000));
        assert_eq!(Workload::of(long.as_bytes()), Workload::default());
        assert_eq!(Workload::of(b"/\xff\xfe/nginx.service"), Workload::default());
    }
}
