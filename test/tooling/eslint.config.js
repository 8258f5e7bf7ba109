import tseslint from 'typescript-eslint'

const clock = [
  {
    selector: "MemberExpression[object.name='Date'][property.name='now']",
    message: 'Ask the clock of kernel.',
  },
  { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: 'Ask the clock of kernel.' },
  { selector: "CallExpression[callee.name='Date']", message: 'Ask the clock of kernel.' },
]

/** Unchecked values and methods taken off their object: allowed in tests, where a wrong one fails the test. */
const loose = [
  'no-unsafe-argument',
  'no-unsafe-assignment',
  'no-unsafe-call',
  'no-unsafe-member-access',
  'no-unsafe-return',
  'unbound-method',
]

export default tseslint.config(
  {
    ignores: [
      '**/node_modules/',
      '**/dist/',
      '**/coverage/',
      '.forge/',
      '**/*.gen.ts',
      '**/gen/',
      'test/e2e/consumers/',
    ],
  },
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-var': 'error',
      'prefer-const': 'error',
      'no-implicit-coercion': 'error',
      'object-shorthand': 'error',
    },
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', ignoreRestSiblings: true, ignoreUsingDeclarations: true },
      ],
      '@typescript-eslint/return-await': ['error', 'in-try-catch'],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      // An async method may answer at once, because its interface promises a promise.
      '@typescript-eslint/require-await': 'off',
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'no-console': 'error',
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'The environment is read in src/runtime alone.' },
      ],
      'no-restricted-syntax': ['error', ...clock],
    },
  },
  { files: ['src/runtime/**/*.ts'], rules: { 'no-restricted-properties': 'off' } },
  { files: ['src/kernel/clock.ts'], rules: { 'no-restricted-syntax': 'off' } },
  {
    files: ['test/**/*.ts', 'examples/**/*.ts'],
    rules: Object.fromEntries(loose.map((name) => [`@typescript-eslint/${name}`, 'off'])),
  },
)
