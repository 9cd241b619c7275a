# No way in, and out only by TLS: to Google's own addresses without a public one.
resource "google_compute_network" "workers" {
  name                    = "${var.name}-workers"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "workers" {
  name                     = "${var.name}-workers"
  network                  = google_compute_network.workers.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/20"
  private_ip_google_access = true
}

resource "google_compute_firewall" "no_way_in" {
  name      = "${var.name}-no-way-in"
  network   = google_compute_network.workers.id
  direction = "INGRESS"
  priority  = 65000
  deny {
    protocol = "all"
  }
  source_ranges = ["0.0.0.0/0"]
}

resource "google_compute_firewall" "out_by_tls" {
  name      = "${var.name}-out-by-tls"
  network   = google_compute_network.workers.id
  direction = "EGRESS"
  priority  = 1000
  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
  destination_ranges = ["0.0.0.0/0"]
}

resource "google_compute_firewall" "nothing_else_out" {
  name      = "${var.name}-nothing-else-out"
  network   = google_compute_network.workers.id
  direction = "EGRESS"
  priority  = 65000
  deny {
    protocol = "all"
  }
  destination_ranges = ["0.0.0.0/0"]
}
