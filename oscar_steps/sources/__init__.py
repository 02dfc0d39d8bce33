"""The sources that are tested: Subversion's exact revisions, exports and history."""
