"""Puts mp3burst on a Kubernetes cluster with Knative, by kubectl and kn."""
