"""The main job, played and checked on real servers."""
