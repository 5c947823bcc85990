declare namespace Cloudflare {
  interface Env {
    CONTROL_PLANE_URL: string;
    EDGE_CREDENTIAL: string;
  }
}
