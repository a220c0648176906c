"""Providers, each behind the port in `generation_svc.application.provider`."""
