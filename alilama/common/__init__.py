"""What every room needs: settings, mistakes in one line, files written whole or not at all, progress bars."""
