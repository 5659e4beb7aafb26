//! The demo's Service.

use testbed::address::Pair;

/// As its author wrote it.
pub(super) const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: np-svc}
spec:
  selector: {app: np-pods}
  ports: [{name: http, protocol: TCP, port: 80, targetPort: 80, nodePort: 30000}]
  type: NodePort
";

pub(super) const NAME: &str = "np-svc";
pub(super) const PORT_NAME: &str = "http";
pub(super) const PORT: u16 = 80;
pub(super) const NODE_PORT: u16 = 30000;

/// The lines of `spec` that an API server adds.
pub(super) fn allocated(Pair { v4, v6 }: Pair) -> String {
    format!("  clusterIP: {v4}\n  clusterIPs: [\"{v4}\", \"{v6}\"]\n  ipFamilies: [IPv4, IPv6]\n")
}
