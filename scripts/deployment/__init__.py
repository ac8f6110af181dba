"""Deploys mp3burst to a Kubernetes cluster with Knative, using kubectl and kn."""
