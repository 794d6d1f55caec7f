import { defineConfig, mergeConfig } from 'vitest/config'
import base from './vite.config.ts'

export default mergeConfig(
  base,
  defineConfig({
    test: {
      environment: 'jsdom',
      include: ['tests/**/*.test.ts'],
      restoreMocks: true,
      unstubGlobals: true,
      // Only a hang should fail by time, not a machine that has other work.
      testTimeout: 120_000,
    },
  }),
)
